# What a study shows on oversight: on audits, reforms, and other tasks' answers.
#
# Needs the tables and the estimates, and is there only if the config has such conditions or evaluations; makes tables of
# effects, a figure for each question that is asked, and a page that tells what was found.


rule oversight:
    input:
        **TABLES,
        **ANALYSIS,
    output:
        effects=OVERSIGHT["effects"],
        seeds=OVERSIGHT["seeds"],
        transfer=OVERSIGHT["transfer"],
        page=report(
            OVERSIGHT["page"],
            caption="../report/oversight/page.rst",
            category=f"{len(CATEGORIES) + 1}. Oversight",
            labels={"figure": "what was found"},
        ),
        figures=[
            report(
                f"{STUDY.reports}/figures/{name}.svg",
                caption=f"../report/oversight/{name}.rst",
                category=f"{len(CATEGORIES) + 1}. Oversight",
                labels={"figure": name.replace("_", " ")},
            )
            for name in OVERSIGHT_FIGURES
        ],
    log:
        "logs/oversight.log",
    benchmark:
        "logs/oversight.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "telling what was found on oversight"
    script:
        "../scripts/oversight.py"
