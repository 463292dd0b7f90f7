# Tables, figures and the report of an experiment.
# Needs: all cells of the experiment. Makes: tables/, figures/, report.html, manifest.json.


rule tables:
    input:
        clean=of_experiment(grid.solved, "clean.h5"),
        attacks=of_experiment(grid.cells, "attack.h5"),
        trajectories=of_experiment(grid.followed, "trajectory.h5"),
    output:
        report(
            expand("results/{{experiment}}/tables/{table}.csv", table=TABLES),
            caption="../report/tables.rst",
            category="{experiment}",
            subcategory="Tables",
        ),
        expand("results/{{experiment}}/tables/{table}.parquet", table=TABLES),
    log:
        logs("tables", "tables"),
    benchmark:
        benchmarks("tables", "tables")
    conda:
        ENVIRONMENT
    params:
        code=code_of("tables"),
    message:
        "Collecting the tables of {wildcards.experiment}"
    script:
        "../scripts/tables.py"


rule figures:
    input:
        tables=expand("results/{{experiment}}/tables/{table}.parquet", table=TABLES),
        attacks=of_experiment(grid.shown, "attack.h5"),
        data=lambda wildcards: [
            f"results/{cell.experiment}/{cell.dataset}/data.h5"
            for cell in grid.shown(CONFIG, wildcards.experiment)
        ],
    output:
        report(
            expand("results/{{experiment}}/figures/{figure}.svg", figure=FIGURES),
            caption="../report/figures.rst",
            category="{experiment}",
            subcategory="Figures",
        ),
        expand("results/{{experiment}}/figures/{figure}.png", figure=FIGURES),
        expand("results/{{experiment}}/figures/{figure}.json", figure=FIGURES),
    log:
        logs("figures", "figures"),
    benchmark:
        benchmarks("figures", "figures")
    conda:
        ENVIRONMENT
    params:
        code=code_of("figures"),
        models=lambda wildcards: CONFIG.experiments[wildcards.experiment].models,
    message:
        "Drawing the figures of {wildcards.experiment}"
    script:
        "../scripts/figures.py"


rule report:
    input:
        clean=of_experiment(grid.solved, "clean.h5"),
        tables=expand("results/{{experiment}}/tables/{table}.parquet", table=TABLES),
        figures=expand("results/{{experiment}}/figures/{figure}.json", figure=FIGURES),
    output:
        report=report(
            "results/{experiment}/report.html",
            caption="../report/report.rst",
            category="{experiment}",
            subcategory="Report",
        ),
        manifest="results/{experiment}/manifest.json",
    log:
        logs("report", "report"),
    benchmark:
        benchmarks("report", "report")
    conda:
        ENVIRONMENT
    params:
        code=code_of("report"),
        paper=lambda wildcards: CONFIG.experiments[wildcards.experiment].paper,
    message:
        "Writing the report of {wildcards.experiment}"
    script:
        "../scripts/report.py"
