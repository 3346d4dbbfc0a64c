"""Students of several sizes: built as said, taught with as much work either way, and all on record."""

from workbench import accounting
from workbench.distillation import student_study
from workbench.distillation.scenes import supervised_flop
from workbench.reasoning.policy import policy_config


def test_dense_students_are_smaller_than_the_teacher_and_have_one_expert():
    teacher = accounting.parameters(policy_config())
    for name, config in student_study.STUDENTS.items():
        if name == student_study.V4:
            assert config == policy_config()
        else:
            assert config.n_routed_experts == config.num_experts_per_tok == 1
            assert accounting.parameters(config).total < teacher.total / 2


def test_reader_and_explorer_start_from_one_base_with_as_much_work(monkeypatch):
    supervised, reinforced = [], []

    def note(policy, texts, steps, seed):
        supervised.append((policy, len(texts), steps))
        return policy

    for name, value in {
        "N_ASKED": 3,
        "N_TEST": 2,
        "trained": note,
        "texts": lambda: ("text",) * 5,
        "reinforce": lambda *given: reinforced.append(given),
    }.items():
        monkeypatch.setattr(student_study, name, value)
    found = student_study.run("dense, width 16", 20)

    (base, *of_base), (reader, *of_reader) = supervised
    ((explorer, families, _, _, seed, budget),) = reinforced
    assert of_base == [3, student_study.BASE_STEPS] and of_reader == [5, student_study.STEPS]
    assert len({id(policy) for policy in (base, reader, explorer)}) == 3
    assert (families, seed) == ([student_study.FAMILY], 20)
    assert found["flop"] == budget == supervised_flop(student_study.dense(16), student_study.STEPS)
    # Nobody learnt anything, so all three are the base.
    assert found["before"] == found["texts"] == found["reward"]


def test_the_record_holds_every_student_and_seed_at_its_size():
    found = student_study.read_study()
    names = {(name, seed) for name in student_study.STUDENTS for seed in student_study.SEEDS}
    assert set(found) == names | {("teacher", 0)}
    for name, seed in names:
        own, size = found[name, seed], accounting.parameters(student_study.STUDENTS[name])
        assert (own["total"], own["active"]) == (size.total, size.active)
