# What is made from the records.
#
# Needs the jobs that are still to be done, and every record; makes the tables, the estimates, the verdicts, the report's
# first page, the figures with their data beside them, and a page for browsing the transcripts. A marker makes Snakemake
# redo an outdated analysis. As with records, the output of the job that makes the tables is a token.


rule tables:
    input:
        tables_token,
    output:
        **TABLES,


rule aggregate:
    input:
        run_tokens,
    output:
        temp(touch(TABLES_TOKEN)),
    log:
        "logs/aggregate.log",
    benchmark:
        "logs/aggregate.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "writing the tables of all records"
    script:
        "../scripts/aggregate.py"


rule analyse:
    input:
        **TABLES,
        redo=redo_analysis,
    output:
        **ANALYSIS,
    log:
        "logs/analyse.log",
    benchmark:
        "logs/analyse.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "judging"
    script:
        "../scripts/analyse.py"


rule figures:
    input:
        **TABLES,
        **ANALYSIS,
    output:
        report(
            f"{STUDY.reports}/figures/contrast.svg",
            caption="../report/contrast.rst",
            category="Verdict",
            labels={"figure": "unearned reward and leniency"},
        ),
        report(
            f"{STUDY.reports}/figures/gain_split.svg",
            caption="../report/gain_split.rst",
            category="Verdict",
            labels={"figure": "what the gain consists of"},
        ),
        report(
            f"{STUDY.reports}/figures/signature.svg",
            caption="../report/signature.rst",
            category="Verdict",
            labels={"figure": "the signature as published"},
        ),
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
            category="Training",
            labels={"figure": "grade inflation"},
        ),
        report(
            f"{STUDY.reports}/figures/reliability.svg",
            caption="../report/reliability.rst",
            category="Calibration and validity",
            labels={"figure": "reliability of the grade"},
        ),
        report(
            f"{STUDY.reports}/figures/validity.svg",
            caption="../report/validity.rst",
            category="Calibration and validity",
            labels={"figure": "unreadable, cut off, lost"},
        ),
        report(
            f"{STUDY.reports}/figures/costs.svg",
            caption="../report/costs.rst",
            category="Cost",
            labels={"figure": "cost of each job"},
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
    message:
        "drawing the figures"
    script:
        "../scripts/figures.py"


rule transcripts:
    input:
        TABLES["records"],
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
    message:
        "writing the page of transcripts"
    script:
        "../scripts/transcripts.py"
