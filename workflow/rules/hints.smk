# What a run tells on the terminal: before it, what will run and about how long; after it, where to look first.


def time_of(jobs):
    """CPU seconds that some jobs, by experiment and name, are expected to take."""
    return sum(
        cost.seconds(STUDY["experiments"][experiment]["kind"], JOBS[experiment][job])
        for experiment, job in jobs
    )


def what_will_run():
    """Cells by kind of experiment, and about how long they take."""
    runs = {f"run_{experiment}": experiment for experiment in STUDY["experiments"]}
    waiting = {}
    for job in workflow.dag.jobs:
        if job.rule.name in runs:
            place = runs[job.rule.name], job.wildcards.job
            if workflow.dag.needrun(job):
                kind = STUDY["experiments"][place[0]]["kind"]
                waiting.setdefault(kind, []).append(place)
    if not waiting:
        return "No cell is to be computed: figures, tables and claims only."
    times = {kind: time_of(jobs) for kind, jobs in waiting.items()}
    lines = [
        f"  {kind:16} {len(waiting[kind]):6} jobs  {cost.duration(times[kind]):>8}"
        for kind in sorted(times, key=times.get, reverse=True)
    ]
    at_once = min(workflow.cores or 1, sum(map(len, waiting.values())))
    total = cost.duration(sum(times.values()) / at_once)
    return (
        "\n".join(
            ["To be computed, with the CPU time of each kind of experiment:", *lines]
        )
        + f"\nAbout {total}, {at_once} at once, on a machine as fast as a small one; less where cells are in a store already."
        + " Then figures, tables and claims.\n"
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
        lines.append("  one file of all: the same command with the target html_report")
    return "\n".join(["Where to look first:", *lines]) if lines else ""
