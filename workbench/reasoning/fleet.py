"""How many sandboxes with walls a cluster holds, and how long they take to start: counted, not built.

Memory decides how many fit: each needs its guest's memory and what its walls cost. What a guest needs,
how large hosts are and what containers and VMs cost are assumptions; the microVM's numbers are published.
Functions have no walls: how many fit is measured (notebook 12), not counted.

Report: section 5.2.5 (hundreds of thousands in a cluster; hosts and shares are not given).
"""

from typing import Any, Literal, get_args

from workbench.facts import fact, facts

Walled = Literal["container", "microvm", "vm"]


def most_sandboxes(kind: Walled, *, hosts: int) -> int:
    """How many sandboxes of one kind fit into the memory of so many hosts.

    Raises:
        ValueError: no hosts.
    """
    if hosts < 1:
        raise ValueError(f"most_sandboxes: got hosts={hosts}; needs 1 or more; give the cluster's size")
    room = fact("sandbox_host_bytes") * (1 - fact("sandbox_host_reserved_share"))
    return hosts * int(room // (fact(f"sandbox_{kind}_bytes") + fact("sandbox_guest_bytes")))


def fleet_rows(hosts: int) -> list[dict[str, Any]]:
    """Each kind: how many fit, how long one takes to start, and where that number is from."""
    return [
        {
            "kind": kind,
            "sandboxes": most_sandboxes(kind, hosts=hosts),
            "start_s": fact(f"sandbox_{kind}_start_s"),
            "origin": facts()[f"sandbox_{kind}_start_s"].kind,
        }
        for kind in get_args(Walled)
    ]
