"""Expert parallelism: each process of a group holds some of the experts, and tokens travel to them.

    dispatch   every token goes to the processes that hold its experts, once for each of its k experts
    experts    each process runs its own experts on what came
    combine    the results go back, and are weighted and added where the token is

Both trips are all-to-alls; so are those of the gradients. No token is dropped.

Report: section 3.1 (expert parallelism); there the trips overlap with the experts' products, here they do
not.
Axes: t tokens, d hidden_size, e experts, k chosen experts, p processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from workbench.model.experts import Experts, run_experts
from workbench.training.distributed.exchange import exchange


class ParallelExperts(nn.Module):
    """`model.experts.Experts` of which this process holds e / p, the first process the first ones.

    The parameters keep names and shapes; they are distributed tensors, cut along the experts.

    Shapes: x (t, d), weights and experts (t, k) -> (t, d).
    """

    def __init__(self, experts: Experts, mesh: DeviceMesh):
        super().__init__()
        self.limit, self.group, self.n_processes = experts.limit, mesh.get_group(), mesh.size()
        self.gate_up_proj, self.down_proj = (
            nn.Parameter(distribute_tensor(weight.detach(), mesh, [Shard(0)]))
            for weight in (experts.gate_up_proj, experts.down_proj)
        )

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        token = order // experts.shape[1]
        gate_up_proj, down_proj = _own(self.gate_up_proj), _own(self.down_proj)
        held = len(down_proj)

        per_expert = chosen.bincount(minlength=held * self.n_processes)
        arriving = torch.empty_like(per_expert)
        dist.all_to_all_single(arriving, per_expert, group=self.group)
        send = per_expert.view(-1, held).sum(dim=1).tolist()
        receive = arriving.view(-1, held).sum(dim=1).tolist()

        came = exchange(x.index_select(0, token), send, receive, self.group)
        # From each process in turn, by expert: the number of the expert of every row that came.
        own = torch.arange(held, device=x.device).repeat(self.n_processes).repeat_interleave(arriving)
        if not len(came):
            # The weights must get a gradient, if only of zeros: all processes add theirs up together.
            came, own = torch.cat((came, came.new_zeros(1, came.shape[1]))), own.new_zeros(1)
        done = run_experts(
            came, came.new_ones(len(came), 1), own[:, None], gate_up_proj, down_proj, self.limit
        )
        back = exchange(done[: sum(receive)], receive, send, self.group)
        y = back * weights.flatten().index_select(0, order).unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, token, y)


def _own(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
