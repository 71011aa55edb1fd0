# What a run tells on the terminal: before it, what will run and about how long; after it, where to look first.


def time_of(jobs):
    """CPU seconds that some jobs, by experiment and name, are expected to take."""
    return sum(
        cost.seconds(STUDY["experiments"][experiment]["kind"], JOBS[experiment][job])
        for experiment, job in jobs
    )


def pace(jobs):
    """What some jobs that are done took on this machine, over what they were expected to; 1 without records."""
    found = []
    for experiment, job in jobs:
        record = workflow.persistence.metadata(job_list(experiment, job)) or {}
        times = record.get("starttime"), record.get("endtime")
        if all(times):
            found.append((times[1] - times[0], time_of([(experiment, job)])))
    return (
        sum(taken for taken, _ in found) / sum(time for _, time in found or [(0, 1)])
        or 1
    )


def what_will_run():
    """Cells by kind of experiment, and about how long they take, at the pace of those that are done."""
    runs = {f"run_{experiment}": experiment for experiment in STUDY["experiments"]}
    waiting, done = {}, []
    for job in workflow.dag.jobs:
        if job.rule.name in runs:
            place = runs[job.rule.name], job.wildcards.job
            if workflow.dag.needrun(job):
                kind = STUDY["experiments"][place[0]]["kind"]
                waiting.setdefault(kind, []).append(place)
            else:
                done.append(place)
    if not waiting:
        return "No cell is to be computed: figures, tables and claims only."
    factor = pace(done)
    times = {kind: factor * time_of(jobs) for kind, jobs in waiting.items()}
    lines = [
        f"  {kind:16} {len(waiting[kind]):6} jobs  {cost.duration(times[kind]):>8}"
        for kind in sorted(times, key=times.get, reverse=True)
    ]
    at_once = min(workflow.cores or 1, sum(map(len, waiting.values())))
    total = cost.duration(sum(times.values()) / at_once)
    basis = (
        "at the pace of the jobs that are done here"
        if done
        else "on a machine as fast as a small one"
    )
    return (
        "\n".join(
            ["To be computed, with the CPU time of each kind of experiment:", *lines]
        )
        + f"\nAbout {total}, {at_once} at once, {basis}; less where cells are in a store already."
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
