# What a run prints on the terminal: before it, what will run and about how long; after it, where to look first.
import shlex
from collections import Counter


def what_will_run():
    """Cells that are new by kind of experiment, about how long they take, and how many are there."""
    spent, jobs = cost.noted(COSTS), jobs_to_run()
    count, times, there = Counter(), Counter(), 0
    for experiment, block in STUDY["experiments"].items():
        wanted = [job for rule_name, job in jobs if rule_name == f"run_{experiment}"]
        if wanted:
            absent = cost.missing(STUDY, experiment)
            of_jobs = [[part for part in JOBS[experiment][job] if part.path in absent] for job in wanted]
            new = sum(of_jobs, [])
            there += sum(len(JOBS[experiment][job]) for job in wanted) - len(new)
            if new:
                count[block["kind"]] += len(new)
                times[block["kind"]] += cost.of_parts(spent, block, new, sum(map(bool, of_jobs)))
    notebooks = sum(rule_name.startswith("notebook_") for rule_name, _ in jobs)
    if notebooks:
        count["notebook"] = notebooks
        times["notebook"] = cost.seconds(spent, "notebook", 0, 0, notebooks)
    if not count:
        lines = ["There is no cell to compute and no figure to draw."]
    else:
        told = (
            "by what such jobs took here before"
            if spent
            else "if this machine is as fast as a small one: nothing was timed here yet"
        )
        lines = [
            "To be computed, with the CPU time of each kind of experiment and of the notebooks, which draw the figures:",
            *(
                f"  {name:16} {count[name]:6} {'new cells' if name != 'notebook' else '':9} {cost.duration(time):>8}"
                for name, time in times.most_common()
            ),
            f"About {cost.duration(sum(times.values()))} of CPU time, {told}.",
        ]
    if there:
        lines.append(
            f"{there} cells are there: they are not computed again, not even with -F. "
            "To start clean: snakemake --delete-all-output"
        )
    return "\n".join(lines) + "\n"


def where_to_look():
    """Of what is there, the files to open first."""
    places = {
        "report": f"{RESULTS}/report.html",
        "what was found": f"{RESULTS}/opening.html",
        "claims": f"{RESULTS}/claims.md",
        "main figure": f"{FIGURE_FOLDER}/main_result.png",
    }
    lines = [f"  {what:15} {path}" for what, path in places.items() if Path(path).exists()]
    if lines and not Path(places["report"]).exists():
        lines.append(f"  all in one file: the same command with --report {shlex.quote(places['report'])}")
    return "\n".join(["Where to look first:", *lines]) if lines else ""
