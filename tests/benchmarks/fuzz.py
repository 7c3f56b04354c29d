"""Reads damaged files in a process with limits, and counts what was lost in silence, what crashed and what hung.

python tests/benchmarks/fuzz.py --cases 5000 --seed 1 --workers 2 --json fuzz.json
python tests/benchmarks/fuzz.py --only mp4-h264-aac:cut_end:123 --keep folder
python tests/benchmarks/fuzz.py --undamaged 200
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing.pool import ThreadPool
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.laboratory.bench import Bench, open_bench
from tests.laboratory.damage import Case, cases
from tests.laboratory.judge import Verdict
from tests.laboratory.originals import ORIGINALS, drawn
from tests.laboratory.runner import Runner

HEADS = ("cases", "refused", "read", "said", "silent", "missing", "spoilt", "unknowable", "concealed")
HEADS += ("unverified", "unnamed", "exception", "crash", "hang", "memory", "worst s")


def numbers(verdicts: list[Verdict]) -> list[str]:
    """A row of the table."""
    count: Counter[str] = Counter(verdict.outcome for verdict in verdicts)
    for verdict in verdicts:
        has_lost = max(
            sum(verdict.lost.get(f"{what} {how}", 0) for how in ("missing", "spoilt")) >= 0.5
            for what in ("picture", "sound")
        )
        is_excused = verdict.unknowable or verdict.concealed or verdict.unverifiable
        count["said"] += has_lost and not (verdict.silent or is_excused)
        count["silent"] += bool(verdict.silent)
        for how in ("missing", "spoilt"):
            count[how] += any(verdict.lost[f"{what} {how}"] >= 0.25 for what in verdict.silent)
        count["unknowable"] += bool(verdict.unknowable)
        count["concealed"] += bool(verdict.concealed)
        count["unverified"] += bool(verdict.unverifiable)
        count["unnamed"] += bool(verdict.unnamed)
    worst = max(verdict.seconds for verdict in verdicts)
    return [str(len(verdicts)), *(str(count[head]) for head in HEADS[1:-1]), f"{worst:.2f}"]


def show(done: dict[Case, Verdict], by) -> None:
    """Print a table with a row for each value of `by`."""
    groups = defaultdict(list)
    for case, verdict in done.items():
        groups[by(case)].append(verdict)
    rows = [[name, *numbers(verdicts)] for name, verdicts in sorted(groups.items())]
    rows.append(["all", *numbers(list(done.values()))])
    print(f"{'':26}" + "".join(f"{head:>11}" for head in HEADS))
    for name, *cells in rows:
        print(f"{name:26}" + "".join(f"{cell:>11}" for cell in cells))
    print()


def fuzz(chosen: list[Case], workers: int, keep: Path | None, verbose: bool) -> tuple[dict, dict[str, str]]:
    """Try cases; returns their verdicts and, by id, what was done."""
    benches: SimpleQueue[Bench] = SimpleQueue()
    done, descriptions = {}, {}

    def act(case: Case):
        bench = benches.get()
        try:
            return case, *bench.try_case(case, keep)
        finally:
            benches.put(bench)

    with ExitStack() as stack, ThreadPool(workers) as pool:
        for _ in range(workers):
            benches.put(stack.enter_context(open_bench(stack.enter_context(Runner()))))
        for case, description, verdict in pool.imap(act, chosen):
            if verdict is None:
                if verbose:
                    print(f"{case.id}: not possible, {description}")
                continue
            done[case], descriptions[case.id] = verdict, description
            if verbose or verdict.is_failure:
                print(f"{case.id} ({description}): {verdict.line}", flush=True)
                if verbose and verdict.trace:
                    print(verdict.trace)
    return done, descriptions


def undamaged(count: int, seed: int) -> bool:
    """Read files in order; returns whether anything was wrong with what came out."""
    wrong = 0
    with Runner() as runner, open_bench(runner) as bench:
        for original in [*ORIGINALS, *drawn(count - len(ORIGINALS), seed)]:
            if said := bench.try_original(original):
                wrong += 1
                print(f"{original.name}: {said}\n    {original}", flush=True)
    print(f"{count} files in order: {wrong} with false warnings or not read as they are")
    return bool(wrong)


def main() -> None:
    """Try cases and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="how many damaged files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that read")
    parser.add_argument("--only", nargs="+", help="ids of cases")
    parser.add_argument("--undamaged", type=int, help="read so many files in order, and count what is wrong")
    parser.add_argument("--keep", type=Path, help="folder in which the damaged files stay")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    parser.add_argument("--json", type=Path, help="file for all results")
    options = parser.parse_args()
    if options.undamaged:
        sys.exit(undamaged(options.undamaged, options.seed))
    began = time.perf_counter()
    chosen = [Case.of(text) for text in options.only] if options.only else cases(options.cases, options.seed)
    done, descriptions = fuzz(chosen, options.workers, options.keep, options.verbose or bool(options.only))
    print()
    show(done, lambda case: case.original)
    show(done, lambda case: case.kind)
    print(f"{len(chosen) - len(done)} cases were not possible; {time.perf_counter() - began:.0f} s")
    if options.json:
        results = [{"id": case.id, "done": descriptions[case.id], **asdict(v)} for case, v in done.items()]
        options.json.write_text(json.dumps(results, indent=1))
    sys.exit(any(verdict.is_failure for verdict in done.values()))


if __name__ == "__main__":
    main()
