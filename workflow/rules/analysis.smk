# What is made from the records.
#
# Needs the jobs that are still to be done, and every record; makes the tables, the estimates, the verdicts, the figures
# with their data beside them, a page for browsing the transcripts, and the report. A marker makes Snakemake
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
        [
            report(
                f"{STUDY.reports}/figures/{name}.svg",
                caption=f"../report/{name}.rst",
                category=f"{CATEGORIES.index(category) + 1}. {category}",
                labels={"figure": title},
            )
            for name, (category, title) in FIGURES.items()
        ],
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
        ANALYSIS["thresholds"],
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


rule report:
    input:
        **TABLES,
        **ANALYSIS,
        figures=rules.figures.output,
    output:
        f"{STUDY.reports}/report.html",
    log:
        "logs/report.log",
    benchmark:
        "logs/report.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        captions=[workflow.source_path(f"../report/{name}.rst") for name in FIGURES],
    message:
        "writing the report"
    script:
        "../scripts/report.py"
