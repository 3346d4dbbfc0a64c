"""Learning to reason: tasks with checkable answers, rollouts, policy optimisation, pipelines."""
