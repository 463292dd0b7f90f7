# What all rules share: the checked configuration, the paths, the wildcards.
# Needs: the configuration. Makes: CONFIG, and the functions that rules use for
# params and inputs.
import gc
import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.persistence import PersistenceBase
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript

SCRIPTS = Path(str(workflow.current_basedir)).parent / "scripts"
# At the end, so that a workflow that uses this one as a module finds its own modules first.
sys.path.append(str(SCRIPTS))

from node_robustness.code import digest
from node_robustness.config import duplicate_keys
from node_robustness.config.loading import load
from node_robustness.data.enough_images import check_prepared
from node_robustness.errors import UserError
from node_robustness.figures import catalogue as figures_shown
from node_robustness.grid import cells as grid
from node_robustness.grid import inputs, params, paths, sources, stages
from node_robustness.grid.paths import (
    CELL,
    CERTIFIED,
    COST,
    DETECTED,
    PREPARED,
    RANDOMISED,
    SHARD,
    SOLVED,
    SWEPT,
    TRAINED,
    result,
)
from node_robustness.grid.shards import Shard, is_split
from node_robustness.provenance import command_line
from node_robustness.scheduling import places, snakemake_fixes, time_left, unrecorded
from node_robustness.tables import catalogue as tables_made
from node_robustness.warm import start as warm_start

command_line.remember()
places.quote_python()
snakemake_fixes.work_around(JobScheduler, PersistenceBase, logger.debug)

# The objects of a plan live until its end. Python's searches for garbage among those of thousands of
# jobs find none, and take a sixth of the time.
gc.set_threshold(100_000, 50, 100)

# Folders have a prefix where this workflow is a module.
RESULTS, RESOURCES = (
    Path(workflow.modifier.modify_path(f"{folder}/any")).parent
    for folder in ("results", "resources")
)

try:
    # A job has the configuration and the folders of the run, which were checked at its start.
    if workflow.is_main_process:
        places.check_writable(Path())  # of Snakemake's own folder
        for folder in (RESULTS, RESOURCES):
            places.check_folder(folder)  # Snakemake looks into it before it starts
        places.check_docstrings(sys.flags.optimize)
        if workflow.deployment_settings.deployment_method:
            places.check_plain("jobs in containers or conda", SCRIPTS, Path.cwd())
        duplicate_keys.check_files(workflow.configfiles)
        duplicate_keys.check_options(sys.argv)
        duplicate_keys.check_arguments(workflow.config_settings.config_args or ())
    CONFIG = load(config)
    # Snakemake's own message for a missing input names neither the key nor a remedy.
    sources.check_files(CONFIG)
    sources.check_checkpoints(CONFIG)
    grid.check_images(CONFIG)
except UserError as error:
    raise WorkflowError(str(error))

if workflow.is_main_process and CONFIG.compute.warm_start:
    warm_start.use_server(workflow, PythonScript, SCRIPTS, logger.debug)

# A workflow that uses this one as a module has other rules, too.
OUR_RULES = workflow.modifier.rules
# Datasets that are attacked in shards.
SPLIT = {name for name in CONFIG.datasets if is_split(CONFIG, name)}
DATA = result(PREPARED, "data.h5")
WEIGHTS = result(TRAINED, "model.safetensors")
SPEC = result(TRAINED, "model.json")
ATTACK = result(CELL, "attack.h5")
SHARD_FILE = result(CELL, paths.SHARD_FILE)


def one_of(names):
    """A wildcard constraint: exactly these names, or nothing at all if there are none."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


wildcard_constraints:
    experiment=one_of(CONFIG.experiments),
    dataset=one_of(CONFIG.datasets),
    folder=one_of(sources.resource_folder(CONFIG, name) for name in CONFIG.datasets),
    model=one_of(CONFIG.models),
    seed=r"\d+",
    tolerance=one_of(
        paths.spell("tolerance", tolerance)
        for experiment in CONFIG.experiments.values()
        for tolerance in (None, *experiment.tolerances)
    ),
    attack=one_of(CONFIG.attacks),
    norm="linf|l2|l2_rms",
    epsilon=one_of(
        paths.spell("epsilon", epsilon)
        for experiment in CONFIG.experiments.values()
        for norm in experiment.norms
        for epsilon in experiment.epsilons_for(norm)
    ),
    shard=r"\d+-\d+",


def for_each_job(function):
    """A function that Snakemake calls for every job, with its parameters looked up once.

    Snakemake looks them up several times a call, which takes longer than the call.
    """
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def code_of(*scripts, modules=lambda wildcards: ()):
    """The param by which a rule's jobs run again when the code or the libraries they use change.

    Rules that make the same file have the code of all of them: its record does not name the rule.
    `modules` are those that a job of these wildcards imports by names that it computes.
    """

    @cache
    def digests(*names):
        found = {}
        for script in scripts:
            found |= digest.of_script(SCRIPTS / f"{script}.py", *names)
        return found

    return for_each_job(lambda wildcards: digests(*modules(wildcards)))


def set_of(*functions):
    """The param by which a rule's jobs run again when the set of their inputs changes.

    Snakemake's own trigger for that, `input`, also sees the shards of an attack, which are no reason
    to attack again.
    """

    def names_of(wildcards):
        names = sorted(name for files in functions for name in files(wildcards))
        return {"sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]}

    return names_of


def of_job(function):
    """The param or the input that a function of the package gives for the coordinates of a job."""

    def value(wildcards):
        return function(CONFIG, paths.values(dict(wildcards)))

    value.__name__ = function.__name__
    return for_each_job(value)


def of_experiment(*files):
    """The input that has one file of all items of an experiment; see `inputs.of_experiment`."""
    return of_job(inputs.of_experiment(*files))


def table_files(suffix, names=tables_made.TABLES):
    """Tables of the experiment of the wildcards; all of them by default."""
    return expand(f"results/{{{{experiment}}}}/tables/{{name}}.{suffix}", name=names)


def figure_files(suffix, names=figures_shown.DRAWN):
    """Figures of the experiment of the wildcards; all of them by default."""
    return expand(f"results/{{{{experiment}}}}/figures/{{name}}.{suffix}", name=names)
