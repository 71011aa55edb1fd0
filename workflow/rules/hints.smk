# What a run prints on the terminal: before it, what will run and about how long; after it, where to look first.
from collections import Counter


def what_will_run():
    """Cells by kind of experiment, and about how long they take."""
    spent = cost.noted(COSTS)
    costs = cost.Costs.measured(spent)
    runs = {f"run_{experiment}": experiment for experiment in STUDY["experiments"]}
    notebooks = {f"notebook_{name}" for name in FAMILIES}
    count, times = Counter(), Counter()
    for job in filter(workflow.dag.needrun, workflow.dag.jobs):
        if job.rule.name in runs:
            experiment = runs[job.rule.name]
            name = STUDY["experiments"][experiment]["kind"]
            times[name] += costs.of_job(name, JOBS[experiment][job.wildcards.job])
            count[name] += 1
        elif job.rule.name in notebooks:
            times["notebook"] += costs.of_run("notebook")
            count["notebook"] += 1
    if not count:
        return "There is no cell to compute and no figure to draw."
    lines = [
        f"  {name:16} {count[name]:6} jobs  {cost.duration(time):>8}"
        for name, time in times.most_common()
    ]
    # On a cluster there is a number of jobs, and none of cores.
    settings = workflow.resource_settings
    at_once = min(settings.cores or settings.nodes or 1, count.total())
    return "\n".join(
        [
            "To be computed, with the CPU time of each kind of experiment and of the notebooks, which draw the figures:",
            *lines,
            f"About {cost.duration(times.total() / at_once)}, {at_once} at once, "
            + (
                "judging by what such jobs took here before"
                if spent
                else "if this machine is as fast as a small one: nothing was timed here yet"
            )
            + "; less where cells are in a store already.\n",
        ]
    )


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
        lines.append("  all in one file: the same command with the target html_report")
    return "\n".join(["Where to look first:", *lines]) if lines else ""
