# The runs.
#
# Needs a model and the items of its tasks; makes the record and the transcripts of every run in the job. Records that
# are valid already are neither deleted nor made again (`update`); the markers name those that are stale or corrupt. A job
# of nothing but valid records needs nothing, so that a model or data that were removed, or are to be made, do not call it.


rule rl_run:
    input:
        model=ancient(models_to_run),
        data=ancient(data_to_run),
        redo=redo_markers,
    output:
        update(scheduling.job_outputs(STUDY, RUNS)),
    log:
        f"logs/rl_run/{JOB}.log",
    benchmark:
        f"logs/rl_run/{JOB}.benchmark.tsv"
    conda:
        "../../envs/run.yaml"
    threads: STUDY.engine.threads
    resources:
        gpu=1,
        vram_gb=job_vram,
        mem_mb=job_memory,
        runtime=job_minutes,
    script:
        "../scripts/rl_run.py"
