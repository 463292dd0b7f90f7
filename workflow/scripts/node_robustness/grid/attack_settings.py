"""The settings of an attack in one cell of the grid."""

from dataclasses import replace
from typing import Any

from node_robustness.config.attack import AnyAttack, GradientAttack, SteppedAttack, Surrogate
from node_robustness.config.config import Config
from node_robustness.config.models import AnyModel
from node_robustness.grid.cells import Cell, can_run, epsilons, source
from node_robustness.grid.stages import is_reevaluated


def cheaper(config: Config, cell: Cell) -> list[Cell]:
    """The cells whose broken images a cell leaves out: none unless its attack is expensive.

    An image that they broke within the epsilon of `_left_out_within` is broken there, whatever the
    expensive attack would find. An attack of gradients leaves out what those broke that are not
    expensive; a black box, which asks whether it breaks what no gradient does, what any of them
    broke. So no two cells wait for each other.

    Only images that attacks by gradients broke are left out. Whether a black box or random noise
    breaks what gradients do not is another question, for which all gradients must fail. The paper's
    attack, those of its method (with which its gradient is compared), and adversarial examples that
    are classified at other tolerances, leave no image out.
    """
    experiment = config.experiments[cell.experiment]
    own, papers = config.attacks[cell.attack], experiment.papers_attack
    if (
        not experiment.skip_broken
        or not own.expensive
        or (papers is not None and own.method == config.attacks[papers].method)
        or is_reevaluated(config, cell)
    ):
        return []
    within = _left_out_within(config, cell)

    broken_by = []
    for name in experiment.every_attack:
        attack = config.attacks[name]
        if (
            attack.SPARES
            and not (attack.expensive and own.by_gradient)
            and can_run(attack, config.models[cell.model], cell.norm)
        ):
            # The only epsilon of an attack that looks for the smallest perturbation is not below.
            found = epsilons(config, experiment, name, cell.norm)
            at = within if within in found else max(found)
            if at == within or (attack.minimal and at > within):
                broken_by.append(replace(cell, attack=name, epsilon=at))
    return broken_by


def _left_out_within(config: Config, cell: Cell) -> float:
    """Within which epsilon a broken image is left out by a cell of an expensive attack.

    An attack at one epsilon leaves out what is broken within that epsilon: at the smaller ones, it
    has cells of its own. An attack that looks for the smallest perturbation has one cell, whose
    sizes count at every epsilon: it leaves out what is broken within the smallest.
    """
    if not config.attacks[cell.attack].minimal:
        return cell.epsilon
    return min(config.experiments[cell.experiment].epsilons_for(cell.norm))


def methods(config: Config, attack: str) -> list[str]:
    """The methods that an attack uses: its own, and that of the attack that it transfers."""
    settings = config.attacks[attack]
    made_by = [] if settings.made_by is None else methods(config, settings.made_by)
    return [settings.method, *made_by]


def attack_settings(config: Config, cell: Cell) -> dict[str, Any]:
    """Everything that counts of an attack in a cell, and nothing else: what its file records.

    The size of a step is in the units of the norm. An attack without a gradient of the model that
    it attacks has `gradient: none`; a model without an ODE has one kind, `direct`.
    """
    attack = config.attacks[cell.attack]
    settings = _parameters(attack, config.models[cell.model], cell.norm, cell.epsilon)
    made_on = source(config, cell)
    if attack.made_by is not None and made_on is not None:
        by, model = config.attacks[attack.made_by], config.models[made_on.model]
        made_by = _parameters(by, model, cell.norm, cell.epsilon)
        settings["by"] = made_by | ({"early_stop": False} if "early_stop" in made_by else {})
        settings["source"] = {
            "model": made_on.model,
            "seed": made_on.seed,
            "tolerance": made_on.tolerance,
        }
    if attack.draws_tolerances:
        if config.models[cell.model].adaptive:
            settings["drawn"] = config.experiments[cell.experiment].distribution
        else:
            del settings["draws"]
    spared_by = cheaper(config, cell)
    if spared_by:
        settings["skips"] = {
            "broken_by": {other.attack: other.epsilon for other in spared_by},
            "within": _left_out_within(config, cell),
        }
    return settings


def _parameters(attack: AnyAttack, model: AnyModel, norm: str, epsilon: float) -> dict[str, Any]:
    gradient = set(GradientAttack.model_fields) - {"method"}
    settings = attack.model_dump(exclude=gradient) | _gradient(attack, model)
    if isinstance(attack, SteppedAttack):
        del settings["relative_step"]
        settings["step"] = step_size(attack, norm, epsilon)
    return settings


def _gradient(attack: AnyAttack, model: AnyModel) -> dict[str, Any]:
    if not isinstance(attack, GradientAttack) or not attack.by_gradient:
        return {"gradient": "none"}
    if attack.gradient == "direct" or not model.has_ode:
        return {"gradient": "direct"}
    settings: dict[str, Any] = {"gradient": attack.gradient}
    if attack.surrogate is not None:
        return settings | {"surrogate": _surrogate(attack.surrogate, model)}
    adjoint = {"adjoint_tolerance": attack.adjoint_tolerance, "adjoint_norm": attack.adjoint_norm}
    return settings | adjoint


def _surrogate(surrogate: Surrogate, model: AnyModel) -> dict[str, Any]:
    """The solver settings that differ from the model's."""
    if surrogate.steps is not None:
        return {"method": surrogate.method, "steps": surrogate.steps}
    method = surrogate.method or model.adaptive_method
    settings = {"method": method, "tolerance": surrogate.tolerance, "steps": None}
    return {name: value for name, value in settings.items() if name != "method" or value}


def step_size(attack: SteppedAttack, norm: str, epsilon: float) -> float:
    """The step of an attack, in the units of the norm."""
    if attack.relative_step is not None:
        return attack.relative_step * epsilon
    step = attack.step_in(norm)
    assert step is not None  # the configuration demands one of the two
    return step
