# What is made of the records.
#
# Needs every record; makes the tables of rounds and of runs, the figures with their data beside them, and a page to
# browse the transcripts.


rule aggregate:
    input:
        RECORDS,
    output:
        rounds=f"{STUDY.results}/rounds.parquet",
        runs=f"{STUDY.results}/runs.parquet",
    log:
        "logs/aggregate.log",
    benchmark:
        "logs/aggregate.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/aggregate.py"


rule figures:
    input:
        rounds=f"{STUDY.results}/rounds.parquet",
        runs=f"{STUDY.results}/runs.parquet",
    output:
        report(
            f"{STUDY.reports}/figures/learning_curves.svg",
            caption="../report/learning_curves.rst",
            category="Training",
            labels={"figure": "learning curves"},
        ),
        report(
            f"{STUDY.reports}/figures/reward_vs_accuracy.svg",
            caption="../report/reward_vs_accuracy.rst",
            category="Training",
            labels={"figure": "reward against accuracy"},
        ),
        report(
            f"{STUDY.reports}/figures/grade_inflation.svg",
            caption="../report/grade_inflation.rst",
            category="Wireheading",
            labels={"figure": "grade inflation"},
        ),
    log:
        "logs/figures.log",
    benchmark:
        "logs/figures.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/figures.py"


rule transcripts:
    input:
        RECORDS,
    output:
        f"{STUDY.reports}/transcripts.html",
    log:
        "logs/transcripts.log",
    benchmark:
        "logs/transcripts.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/transcripts.py"
