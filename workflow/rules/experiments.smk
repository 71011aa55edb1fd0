# The cells of each experiment, and its tables. A job computes one or more cells, each for a block of seeds, into a part.
# Its path holds the digest of all that the parts of the experiment are computed from, so a part that is there is
# current. Parts are deleted once they are collected; a job takes from the tables the cells that these hold.
TARGETS = {place: path for experiment in STUDY["experiments"] for path, place in target_files(experiment).items()}


rule target_file:
    # A link, or a copy where outputs go elsewhere, as with a storage provider.
    output:
        temp(f"{RESULTS}/.targets/{{content}}/{{file}}"),
    log:
        f"{LOGS}/targets/{{content}}/{{file}}.log",
    wildcard_constraints:
        content="[0-9a-f]{64}",
    localrule: True
    params:
        place=f"{RESULTS}/.targets/{{content}}/{{file}}",
        file=lambda wildcards: TARGETS[f"{RESULTS}/.targets/{wildcards.content}/{wildcards.file}"],
    shell:
        'if [ {output:q} = {params.place:q} ]; then ln -sf "$(realpath {params.file:q})" {output:q};'
        " else cp {params.file:q} {output:q}; fi 2> {log:q}"


for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"run_{experiment}"
        input:
            target=ancient(list(target_files(experiment).values())),
        output:
            temp(part_of_job(experiment, "{job}")),
        log:
            f"{LOGS}/{experiment}/{{job}}.log",
        group:
            "cells"  # several in one cluster job: profiles say how many
        params:
            cells=lambda wildcards, input, jobs=JOBS[experiment], files=target_files(experiment): [
                settings_of(part, dict(zip(files, input.target))) for part in jobs[wildcards.job]
            ],
            seeds=lambda wildcards, jobs=JOBS[experiment]: [part.seeds for part in jobs[wildcards.job]],
            code=EXPECTED[experiment]["code"],
        shell:
            '"$DEEPBURES_PYTHON" -m deepbures run --cell {params.cells:q} --seeds {params.seeds} --part {output:q}'
            f" --code {{params.code}} --costs {COSTS} 2> {{log:q}}"

    rule:
        name:
            f"collect_{experiment}"
        input:
            parts=[part_of_job(experiment, job) for job in JOBS[experiment]],
            wanted=stamp(
                f"tables/{experiment}",
                digest_of(EXPECTED[experiment]),
                table_paths(experiment),
                lambda: tables_are_current(experiment),
            ),
        output:
            table_paths(experiment),
        log:
            f"{LOGS}/{experiment}/collect.log",
        localrule: True
        params:
            experiment=lambda wildcards, experiment=experiment: wanted_tables(experiment),
            # Of the first job; elsewhere than declared if there is a storage provider.
            parts=lambda wildcards, input, job=next(iter(JOBS[experiment])): folder_of_parts(input.parts[0], job),
        shell:
            '"$DEEPBURES_PYTHON" -m deepbures collect --experiment {params.experiment:q} --parts {params.parts:q}'
            " --tables {output:q} 2>&1 | tee {log:q} >&2"
