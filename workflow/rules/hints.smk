# What a run prints on the terminal: before it, what will run and about how long; after it, where to look first.
from collections import Counter


def what_will_run():
    """Cells that are new by kind of experiment, about how long they take, and how many are there."""
    spent = cost.noted(COSTS)
    costs = cost.Costs.measured(spent)
    count, times, there, absent = Counter(), Counter(), 0, {}
    for rule_name, job in jobs_to_run():
        action, _, experiment = rule_name.partition("_")
        if action == "run":
            parts = JOBS[experiment][job]
            if experiment not in absent:
                absent[experiment] = cost.missing(STUDY, experiment)
            new = [part for part in parts if part.path in absent[experiment]]
            name = STUDY["experiments"][experiment]["kind"]
            times[name] += costs.of_job(name, new)
            count[name] += len(new)
            there += len(parts) - len(new)
        elif action == "notebook":
            times[action] += costs.of_run(action)
            count[action] += 1
    if not sum(count.values()):
        lines = ["There is no cell to compute and no figure to draw."]
    else:
        told = "judging by what such jobs took here before"
        lines = [
            "To be computed, with the CPU time of each kind of experiment and of the notebooks, which draw the figures:",
            *(
                f"  {name:16} {count[name]:6} {'new cells' if name != 'notebook' else '':9} {cost.duration(time):>8}"
                for name, time in times.most_common()
            ),
            f"About {cost.duration(sum(times.values()))} of CPU time, "
            f"{told if spent else 'if this machine is as fast as a small one: nothing was timed here yet'}.",
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
    lines = [
        f"  {what:15} {path}" for what, path in places.items() if Path(path).exists()
    ]
    if lines and not Path(places["report"]).exists():
        lines.append(
            f"  all in one file: the same command with --report {places['report']}"
        )
    return "\n".join(["Where to look first:", *lines]) if lines else ""
