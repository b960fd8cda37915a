"""Change the weights that stay to make up for those that go, layer by layer, by what data says.

`LayerProblem` is what is known of a layer, `LayerTarget` what is to go, and `solve` runs one of
`SOLVERS` and gives a `LayerSolution`.
"""

from secateur.reconstruction.admm import ADMM
from secateur.reconstruction.affine import AffineStatistics
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.refit import Refit
from secateur.reconstruction.solving import SOLVERS, Solver, solve
from secateur.reconstruction.sparsegpt import SparseGPT
from secateur.reconstruction.swap import Swap
from secateur.reconstruction.target import LayerTarget

__all__ = [
    "ADMM",
    "SOLVERS",
    "AffineStatistics",
    "LayerProblem",
    "LayerSolution",
    "LayerTarget",
    "Refit",
    "Solver",
    "SparseGPT",
    "Swap",
    "solve",
]
