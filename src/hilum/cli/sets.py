"""``hilum data list``, ``fetch``, ``verify``, ``split`` and ``folds``: data sets from the server to the split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of
from hilum.errors import UsageError


def data_list(options: argparse.Namespace) -> int:
    """Kinds of data set."""
    from hilum.datasets import describe, facts_of

    table: dict[str, dict[str, Any]] = {}
    lines = []
    for name, text in describe().items():
        facts = facts_of(name)
        table[name] = {"text": text}
        lines.append(f"{name:12} {text}")
        if facts is not None:
            size = f"about {facts.size_gb:.0f} GB" if facts.size_gb else "size depends on the task"
            how = "hilum data fetch" if facts.remote is not None else "by hand: 'hilum data fetch' says how"
            lines.append(f"{'':12}   {facts.cases}; {size}; {facts.licence}; {how}")
            lines.append(f"{'':12}   cite: {facts.citation}")
            table[name] |= {
                "title": facts.title,
                "cases": facts.cases,
                "size_gb": facts.size_gb or None,
                "licence": facts.licence,
                "citation": facts.citation,
                "home": facts.home,
                "layout": facts.layout,
                "fetch": [f"{name}:{v}" for v in facts.variants] or ([name] if facts.remote is not None else []),
                "by_hand": facts.by_hand,
                "traps": [{"code": trap.code, "text": trap.text} for trap in facts.traps],
            }
    return answered(options, table, "\n".join(lines))


def data_fetch(options: argparse.Namespace) -> int:
    """Fetch a public data set."""
    from hilum.survey.fetch import fetch

    answer = fetch(
        options.name, Path(options.out), cases=options.cases, jobs=options.jobs, progress=progress_of(options)
    )
    lines = [f"licence of the data: {answer['licence']}", f"cite: {answer['citation']}"]
    if answer["by_hand"]:
        return answered(options, answer, "\n".join([*lines, answer["by_hand"]]), 1)
    lines += [f"failed: {path}: {why}" for path, why in answer["failed"].items()]
    lines.append(f"{answer['fetched']} files fetched, {answer['there']} were there, {len(answer['failed'])} failed")
    if answer["failed"]:
        lines.append("run the same command again: it goes on from there")
    else:
        lines.append(f"next: hilum data verify {options.name.partition(':')[0]}={options.out}")
    return answered(options, answer, "\n".join(lines), 1 if answer["failed"] else 0)


def data_verify(options: argparse.Namespace) -> int:
    """Look a data set over."""
    from hilum.labels import scheme_from
    from hilum.survey.verify import as_text, verify

    name, path = named_path(options.data)
    report = verify(
        name,
        path,
        Path(options.out),
        against=[named_path(text) for text in options.against],
        folds=Path(options.folds) if options.folds else None,
        scheme=scheme_from(options.scheme) if options.scheme else None,
        labels_only=options.labels_only,
        fix=options.fix,
        workers=options.workers,
        progress=progress_of(options),
    )
    text = f"{as_text(report, 8)}\nreport: {Path(options.out) / 'verify.html'}"
    failed = report["summary"]["broken"] or any("failed" in entry for entry in report.get("fixed", []))
    return answered(options, report, text, 1 if failed else 0)


def data_split(options: argparse.Namespace) -> int:
    """Label right and left."""
    from hilum.labels import scheme_from
    from hilum.survey.split import split_files

    name, path = named_path(options.data)
    out = Path(options.out)
    scheme = scheme_from(options.scheme) if options.scheme else None
    answer = split_files(name, path, out, labels_only=options.labels_only, scheme=scheme, progress=progress_of(options))
    lines = [f"{label['value']} {label['name']}" for label in answer["scheme"]["labels"]]
    for case, facts in answer["cases"].items():
        lines += [f"{case}: {flag['text']}" for flag in facts["flags"]]
    lines += [f"failed: {case}: {why}" for case, why in answer["failed"].items()]
    flagged = sum(1 for facts in answer["cases"].values() if facts["flags"])
    lines.append(f"{len(answer['cases'])} label maps in {out / 'labels'}, {flagged} flagged")
    if not options.labels_only:
        lines.append(f"next: hilum train default --data folder={out / 'manifest.csv'} --out runs/sides")
    return answered(options, answer, "\n".join(lines), 1 if answer["failed"] else 0)


def data_folds(options: argparse.Namespace) -> int:
    """Write who is held out when."""
    from hilum.labels import scheme_from
    from hilum.survey.folding import write_stratified

    name, path = named_path(options.data)
    scheme = scheme_from(options.scheme) if options.scheme else None
    answer = write_stratified(
        name,
        path,
        Path(options.out),
        count=options.count,
        seed=options.seed,
        scheme=scheme,
        progress=progress_of(options),
    )
    lines = [
        f"fold {i}: {_count(fold['cases'], 'case')}, {_count(fold['patients'], 'patient')}, "
        f"lesions {fold['lesion_ml']:.0f} mL in all, median {fold['median_ml']:.1f} mL, {fold['without']} without"
        for i, fold in enumerate(answer["folds"])
    ]
    lines.append(f"next: hilum train default --data {options.data} --folds {options.out} --fold 0 --out runs/fold0")
    return answered(options, answer, "\n".join(lines))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def named_path(text: str) -> tuple[str, Path]:
    """``kits23=/data/kits23`` taken apart.

    Raises:
        UsageError: no name, or no path.
    """
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"data {text!r}", wanted="NAME=PATH, e.g. kits23=/data/kits23")
    return name, Path(path).expanduser()


def set_words(parts: Any) -> None:
    """Words of the verbs in this file."""
    text = "kinds of data set: what they are, their licence, citation and size"
    add_verb(parts, "list", data_list, text, "hilum data list")
    text = "fetch a public data set: resumable, checked, several files at a time (the only verb that uses the network)"
    words = add_verb(parts, "fetch", data_fetch, text, "hilum data fetch kits23 --out /data/kits23 --cases 0-9")
    words.add_argument(
        "name", metavar="NAME", help="kits19, kits21, kits23, msd:Task03_Liver, ...; see hilum data list"
    )
    words.add_argument("--out", required=True, metavar="PATH", help="folder to fill; run again to go on")
    words.add_argument("--cases", default="", metavar="0-9", help="numbers and spans (default: all)")
    words.add_argument("--jobs", type=int, default=4, metavar="N", help="files at a time (default: 4)")
    text = "read every file of a data set whole and say what is wrong with it, in classes"
    words = add_verb(parts, "verify", data_verify, text, "hilum data verify kits23=/data/kits23 --out verified --fix")
    words.add_argument("data", metavar="NAME=PATH", help="kind and place, e.g. lits=/data/lits")
    words.add_argument("--out", default="verified", metavar="DIR", help="reports and copies (default: verified)")
    words.add_argument("--fix", action="store_true", help="write corrected copies to DIR/fixed, never in place")
    words.add_argument(
        "--against", action="append", default=[], metavar="NAME=PATH", help="another set: shared patients are named"
    )
    words.add_argument("--folds", metavar="FILE", help="a file of folds: patients in two of them are named")
    words.add_argument("--scheme", metavar="NAME", help="what the labels mean, where the data do not say")
    words.add_argument("--labels-only", action="store_true", help="label maps were handed on alone: ask for no image")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core, to 8)")
    text = "give right and left of paired organs labels of their own, in copies beside"
    words = add_verb(parts, "split", data_split, text, "hilum data split kits23=/data/kits23 --out kits23_sides")
    words.add_argument("data", metavar="NAME=PATH", help="a data set whose scheme has a paired organ (kits, kits19)")
    words.add_argument("--out", required=True, metavar="DIR", help="labels/, manifest.csv, labels.json, sides.json")
    words.add_argument("--scheme", metavar="NAME", help="what the labels mean, where the data do not say")
    words.add_argument("--labels-only", action="store_true", help="do not read the scans (sides by the labels alone)")
    text = "write folds by patient, even in the volume of lesions, for every method to be compared on"
    words = add_verb(parts, "folds", data_folds, text, "hilum data folds kits23=/data/kits23 --out folds.json")
    words.add_argument("data", metavar="NAME=PATH", help="kind and place")
    words.add_argument("--out", required=True, metavar="FILE", help="what train --folds takes")
    words.add_argument("--count", type=int, default=5, metavar="K", help="how many folds (default: 5)")
    words.add_argument("--seed", type=int, default=0, help="the same seed gives the same folds (default: 0)")
    words.add_argument("--scheme", metavar="NAME", help="what the labels mean, where the data do not say")
