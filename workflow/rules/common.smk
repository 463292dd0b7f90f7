# What all rules share: the checked configuration, the paths, the wildcards.
# Needs: the configuration. Makes: CONFIG, and the functions that name files.
import gc
import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.scheduling.job_scheduler import JobScheduler

SCRIPTS = Path(str(workflow.current_basedir)).parent / "scripts"
# At the end: to a workflow that uses this one as a module, our scripts are not its modules.
sys.path.append(str(SCRIPTS))

from node_robustness.config import duplicate_keys
from node_robustness.config.loading import load
from node_robustness.data.enough_images import check_prepared
from node_robustness.errors import UserError
from node_robustness.grid import attack_settings as settings_of_attacks
from node_robustness.grid import cells as grid
from node_robustness.grid import shards as grid_shards
from node_robustness.grid import sources, stages
from node_robustness.numbers import token
from node_robustness.provenance import command_line
from node_robustness.scheduling import code_digest, places, snakemake_fixes, unrecorded
from node_robustness.shapes.datasets import images_to_test

command_line.remember()
places.quote_python()
snakemake_fixes.mend(JobScheduler)

# The objects of a plan live until its end: to look among those of thousands of jobs for garbage
# that is not there, as often as Python does, takes a sixth of the time.
gc.set_threshold(100_000, 50, 100)

try:
    # A job has the configuration and the folders of the run, which were checked when that began.
    if workflow.is_main_process:
        places.check_writable(
            Path()
        )  # whatever is to be done, Snakemake's own folder is there
        places.check_docstrings(sys.flags.optimize)
        if workflow.deployment_settings.deployment_method:
            places.check_plain("jobs in containers or conda", SCRIPTS, Path.cwd())
        duplicate_keys.check_files(workflow.configfiles)
        duplicate_keys.check_options(sys.argv)
        duplicate_keys.check_arguments(workflow.config_settings.config_args or ())
    CONFIG = load(config)
    # Snakemake's own message for a missing input would name neither the key nor a remedy.
    sources.check_checkpoints(CONFIG)
    grid.check_images(CONFIG)
except UserError as error:
    raise WorkflowError(str(error))

# Of a workflow that uses this one as a module there are others.
OUR_RULES = workflow.modifier.rules
# Where files are: as a module they may have a prefix.
RESULTS, RESOURCES = (
    Path(workflow.modifier.modify_path(f"{folder}/any")).parent
    for folder in ("results", "resources")
)
# Of these datasets attacks are made in shards, of the others in one piece.
SPLIT = {name for name in CONFIG.datasets if grid_shards.is_split(CONFIG, name)}
DATA = "results/{experiment}/{dataset}/data.h5"
TRAINED = "results/{experiment}/{dataset}/{model}/seed-{seed}"
SOLVED = f"{TRAINED}/tau-{{tolerance}}"
CELL = f"{SOLVED}/{{attack}}/{{norm}}/eps-{{epsilon}}"
SHARD = f"{CELL}/attack-{{shard}}.h5"
# From the token in a file name back to the number.
TOLERANCES = {grid.NO_TOLERANCE: None} | {
    token(tolerance): tolerance
    for experiment in CONFIG.experiments.values()
    for tolerance in experiment.tolerances
}
EPSILONS = {
    token(epsilon): epsilon
    for experiment in CONFIG.experiments.values()
    for norm in experiment.norms
    for epsilon in experiment.epsilons_for(norm)
}


def one_of(names):
    """A wildcard constraint: exactly these names, or nothing at all if there are none."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


wildcard_constraints:
    experiment=one_of(CONFIG.experiments),
    dataset=one_of(CONFIG.datasets),
    folder=one_of(sources.resource_folder(CONFIG, name) for name in CONFIG.datasets),
    model=one_of(CONFIG.models),
    seed=r"\d+",
    tolerance=one_of(TOLERANCES),
    attack=one_of(CONFIG.attacks),
    norm="linf|l2|l2_rms",
    epsilon=one_of(EPSILONS),
    shard=r"\d+-\d+",


def logs(rule, path):
    """Where a rule keeps the log of a job."""
    return f"results/{{experiment}}/logs/{rule}/{path}.log"


def benchmarks(rule, path):
    """Where a rule keeps what a job cost."""
    return f"results/{{experiment}}/benchmarks/{rule}/{path}.tsv"


def for_each_job(function):
    """A function that Snakemake calls for every job: its parameters are looked at once.

    Snakemake asks for them several times a call, which takes longer than the call.
    """
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def code_of(*scripts, modules=lambda wildcards: ()):
    """The param by which a rule's jobs run again when the code or the libraries they use change.

    Rules that make the same file have the code of all of them: its record does not say which did.
    `modules` are those that a job of these wildcards imports by names that it computes.
    """

    @cache
    def digest(*names):
        found = {}
        for script in scripts:
            found |= code_digest.of_script(SCRIPTS / f"{script}.py", *names)
        return found

    return for_each_job(lambda wildcards: digest(*modules(wildcards)))


def methods(wildcards):
    """The modules of the methods that an attack uses: only these, so that no other reruns it."""
    used = settings_of_attacks.methods(CONFIG, wildcards.attack)
    return [f"node_robustness.attacks.{method}" for method in used]


def set_of(*inputs):
    """The param by which a rule's jobs run again when the set of their inputs changes.

    Snakemake's own trigger for that, `input`, also sees the shards of an attack, which are no reason
    to attack again.
    """

    def digest(wildcards):
        names = sorted(name for paths in inputs for name in paths(wildcards))
        return {"sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]}

    return digest


def source_of(folder):
    """Which files lie in a folder of resources/, and how they are read (not: from which mirror)."""
    name = next(
        n for n in CONFIG.datasets if sources.resource_folder(CONFIG, n) == folder
    )
    dataset = CONFIG.datasets[name]
    return {
        "name": dataset.source,
        "files": {role: (f.name, f.sha256) for role, f in dataset.files.items()},
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
        "label_bytes": dataset.label_bytes,
    }


@for_each_job
def coordinates(wildcards):
    """The wildcards of a cell, or of a part of one, as values."""
    values = {**wildcards, "seed": int(wildcards.seed)}
    # A shard is attacked as its cell is, and its file says the same.
    values.pop("shard", None)
    if "tolerance" in values:
        values["tolerance"] = TOLERANCES[wildcards.tolerance]
    if "epsilon" in values:
        values["epsilon"] = EPSILONS[wildcards.epsilon]
    return values


@for_each_job
def architecture(wildcards):
    """The keys of a model that fix its architecture; those that it does not use are left out."""
    model = CONFIG.models[wildcards.model]
    unused = {"blocks"} if model.body == "ode" else {"solver"}
    return model.model_dump(exclude={"training", "weights"} | unused)


@for_each_job
def imported(wildcards):
    """The file that a model's weights are imported from."""
    return sources.checkpoint(CONFIG, wildcards.model, wildcards.seed)


@for_each_job
def training(wildcards):
    """The training settings of a model; a model without an ODE has no solver to set."""
    settings = CONFIG.training_of(wildcards.model).model_dump()
    if CONFIG.models[wildcards.model].body != "ode":
        settings |= {"solver": "batched", "gradient": "direct"}
    return settings


def cell(wildcards):
    """The cell of the grid that the wildcards name."""
    w = wildcards
    return cell_at(
        w.experiment,
        w.dataset,
        w.model,
        w.seed,
        w.tolerance,
        w.attack,
        w.norm,
        w.epsilon,
    )


@cache
def cell_at(experiment, dataset, model, seed, tolerance, attack, norm, epsilon):
    """The cell of the grid at coordinates as paths spell them; a job asks for it several times."""
    tau, size = TOLERANCES[tolerance], EPSILONS[epsilon]
    return grid.Cell(experiment, dataset, model, int(seed), tau, attack, norm, size)


@for_each_job
def attack_settings(wildcards):
    """Everything that counts of an attack in this cell."""
    return settings_of_attacks.attack_settings(CONFIG, cell(wildcards))


@for_each_job
def source_model(wildcards):
    """The weights and the spec of the model whose adversarials this cell takes, if any."""
    source = grid.source(CONFIG, cell(wildcards))
    if source is None:
        return []
    return [
        f"results/{source.weights_folder}/{name}"
        for name in ("model.safetensors", "model.json")
    ]


@for_each_job
def tested_images(wildcards):
    """How many test images are evaluated and attacked: None for all."""
    return CONFIG.datasets[wildcards.dataset].subset.test


def images_of(section, wildcards):
    """How many test images a section of the experiment measures: never more than are attacked.

    Of data that are yet to be counted it may be more than there are.
    """
    attacked = images_to_test(CONFIG.datasets[wildcards.dataset])
    return section.images if attacked is None else min(section.images, attacked)


@for_each_job
def cheaper_attacks(wildcards):
    """The cells whose broken images this one leaves out, if any."""
    cheaper = settings_of_attacks.cheaper(CONFIG, cell(wildcards))
    return [f"results/{item.folder}/attack.h5" for item in cheaper]


@for_each_job
def shards(wildcards):
    """The files of the shards of this cell, in the order of their images."""
    item = cell(wildcards)
    return [
        f"results/{item.folder}/attack-{shard.name}.h5"
        for shard in grid_shards.shards(CONFIG, item)
    ]


@for_each_job
def part(wildcards):
    """Which of the cell's images this shard has."""
    shard = grid_shards.Shard.named(wildcards.shard)
    return [shard.first, shard.end]


@for_each_job
def images_of_part(wildcards):
    """How many test images a shard is cut from: those up to its end, however many there are."""
    return grid_shards.Shard.named(wildcards.shard).end


@for_each_job
def probe_settings(wildcards):
    """What probes are fitted to: the times, and how many validation images (None for all)."""
    return {
        "times": CONFIG.experiments[wildcards.experiment].trajectories.times,
        "images": CONFIG.datasets[wildcards.dataset].subset.validation,
    }


@for_each_job
def probe(wildcards):
    """The probes by which the decision of this cell is read along t, if there are any."""
    if not CONFIG.experiments[wildcards.experiment].trajectories.probe:
        return []
    return f"results/{cell(wildcards).solved_folder}/probe.h5"


@for_each_job
def follow_settings(wildcards):
    """What is followed in a cell, and the tolerance of its reference curve."""
    follow = CONFIG.experiments[wildcards.experiment].trajectories
    return {
        **follow.model_dump(exclude={"attacks", "norms", "epsilons", "tolerances"}),
        "tight_tolerance": grid.TIGHT_TOLERANCE,
    }


@for_each_job
def audit_settings(wildcards):
    """What an audit measures, and the norm and epsilon of its attacks."""
    experiment = CONFIG.experiments[wildcards.experiment]
    norm = experiment.norms[0]
    return {
        **experiment.audit.model_dump(),
        "images": images_of(experiment.audit, wildcards),
        "norm": norm,
        "epsilon": stages.middle(experiment.epsilons_for(norm)),
        "tight_tolerance": grid.TIGHT_TOLERANCE,
        "rk4_steps": grid.RK4_STEPS,
    }


@for_each_job
def judging_tolerances(wildcards):
    """The tolerances at which adversarials are judged, from tight to loose."""
    experiment = CONFIG.experiments[wildcards.experiment]
    return sorted({grid.TIGHT_TOLERANCE, *experiment.tolerances})


@for_each_job
def randomisation_settings(wildcards):
    """The distribution of the tolerance, and the parameters of its attackers."""
    experiment = CONFIG.experiments[wildcards.experiment]
    section = experiment.randomisation
    low, high = experiment.drawn_tolerances(section)
    chosen = section.model_dump(exclude={"norms", "epsilons", "relative_step"})
    step = section.relative_step * EPSILONS[wildcards.epsilon]
    return {
        **chosen,
        "images": images_of(section, wildcards),
        "low": low,
        "high": high,
        "step": step,
    }


@for_each_job
def detection_settings(wildcards):
    """The tolerances of the detector, and the parameters of the attacks."""
    experiment = CONFIG.experiments[wildcards.experiment]
    section = experiment.detection
    return {
        **section.model_dump(include={"iterations", "penalty"}),
        "images": images_of(section, wildcards),
        "tolerances": sorted(experiment.tolerances),
        "step": section.relative_step * EPSILONS[wildcards.epsilon],
    }


def of_experiment(cells, name):
    """The paths of one file for all cells of the experiment of the wildcards."""

    def paths(wildcards):
        return [
            f"results/{cell.folder}/{name}"
            for cell in cells(CONFIG, wildcards.experiment)
        ]

    return paths


def probes(wildcards):
    """The probes of all models and tolerances that are followed, if there are any."""
    section = CONFIG.experiments[wildcards.experiment].trajectories
    if section is None or not section.probe:
        return []
    followed = stages.followed(CONFIG, wildcards.experiment)
    return list(
        dict.fromkeys(f"results/{cell.solved_folder}/probe.h5" for cell in followed)
    )


def papers_attack(wildcards):
    """The attack of an experiment that is the paper's protocol; None if none is."""
    return CONFIG.experiments[wildcards.experiment].papers_attack


def training_tolerances(wildcards):
    """The tolerance in training, by model; only of models that have one."""
    return {
        name: CONFIG.models[name].solver.tolerance
        for name in CONFIG.experiments[wildcards.experiment].models
        if CONFIG.models[name].body == "ode"
        and CONFIG.models[name].solver.steps is None
    }


def final_output():
    """The files that a complete run has."""
    claims = dict.fromkeys(
        f"results/{item.experiment}/claims/{item.dataset}-{item.model}.json"
        for name in CONFIG.experiments
        for item in grid.trained(CONFIG, name)
    )
    return [*(f"results/{name}/report.html" for name in CONFIG.experiments), *claims]
