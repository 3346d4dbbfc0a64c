"""Make the recorded studies of pre-training, or what is missing of them.

    python -m workbench.training.studies text

A study that was stopped goes on where it stood: what is recorded is not run again.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch

from workbench.training.corpus import load_corpus
from workbench.training.studies.record import STUDIES, records
from workbench.training.studies.text import VOCABULARY


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.training.studies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("study", choices=STUDIES, help="which one")
    parser.add_argument("--only", nargs="*", help="these variants; all if left out")
    parser.add_argument("--seeds", nargs="*", type=int, help="these seeds; the study's own if left out")
    chosen = parser.parse_args(arguments)
    study = STUDIES[chosen.study]
    torch.set_num_threads(1)  # sums in another order are another run
    corpus = load_corpus(VOCABULARY) if study.needs_text else None
    kept = records(chosen.study)
    for name, seed in study.wanted(chosen.seeds or study.seeds):
        if chosen.only and name not in chosen.only:
            continue
        found = kept.get({"variant": name, "seed": seed}, partial(study.run, name, seed, corpus))
        print(f"seed {seed} {name:24} {study.headline(found)}", flush=True)


if __name__ == "__main__":
    main()
