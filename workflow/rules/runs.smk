# The runs.
#
# Needs a model and the items of its tasks; makes the record and the transcripts of every run without a valid record.
# Snakemake must not delete any of them, whatever happens to the job: the job's output is a token, and a record that is
# requested by name comes from a rule that does nothing.


rule record:
    input:
        token_of_run,
    output:
        f"{STUDY.results}/{RECORD}",


rule rl_run:
    input:
        model=ancient(models_to_run),
        data=ancient(data_to_run),
    output:
        temp(touch(scheduling.token(STUDY, JOB))),
    log:
        f"logs/rl_run/{JOB}.log",
    benchmark:
        f"logs/rl_run/{JOB}.benchmark.tsv"
    conda:
        "../../envs/run.yaml"
    threads: STUDY.engine.threads
    resources:
        gpu=job_gpus,
        vram_gb=job_vram,
        mem_mb=job_memory,
        runtime=job_minutes,
    params:
        runs=lambda wildcards: [str(run) for run in runs_of(wildcards)],
    message:
        f"running {JOB_MESSAGE}"
    script:
        "../scripts/rl_run.py"
