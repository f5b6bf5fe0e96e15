"""A PyTorch ExportedProgram, run node by node under autograd: its FX node names are the ONNX tensor names.

A program in half precision is run in float32, as the graph made from it is (analyzer/graph/precision.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from analyzer.backends.interpreter import Torch
from analyzer.backends.native import Fed, Measured
from analyzer.backends.source.matching import MOVES_ONLY
from analyzer.backends.torch import autograd
from analyzer.errors import AnalysisError, BackendError
from analyzer.types import Arrays
from converters.errors import one_line
from converters.model import PyTorchSource
from converters.sources.torch_call import exclusive


class PyTorchNetwork:
    """The decomposed program of a converted nn.Module: no module hooks, every intermediate by name."""

    keeps_names = True

    def __init__(self, source: PyTorchSource, framework: Torch, *, half: bool = False) -> None:
        self.framework = framework
        self._half = half
        self._program = source.program
        self._onnx_inputs = source.inputs
        specs = self._program.graph_signature.input_specs
        nodes = [node for node in self._program.graph.nodes if node.op == "placeholder"]
        user = [node for node, spec in zip(nodes, specs, strict=True) if _is_tensor(spec)]
        self._inputs = {name: node.name for name, node in zip(source.inputs, user, strict=True)}
        self._constants = source.constants
        own = [node for name, node in zip(source.inputs, user, strict=True) if name not in source.constants]
        sizes = [node.meta["val"].shape[0] for node in own if getattr(node.meta.get("val"), "ndim", 0)]
        # A symbolic size is torch's own type, and unhashable: only a traced number is an int.
        traced = all(isinstance(size, int) for size in sizes) and len(set(sizes)) == 1
        self.batch: int | None = sizes[0] if traced else None

    def names(self) -> dict[str, bool]:
        """Every float tensor that a node computes, and whether a layer computes it."""
        found = {}
        for node in self._program.graph.nodes:
            value = node.meta.get("val")
            dtype = getattr(value, "dtype", None)
            if node.op == "call_function" and dtype is not None and dtype.is_floating_point:
                found[node.name] = _op_name(node) not in MOVES_ONLY
        return found

    def candidates(self, name: str) -> Sequence[str]:
        """The FX name is the ONNX name."""
        return [self._inputs.get(name, name)]

    @exclusive
    def values(self, feeds: Fed, names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        torch: Any = self.framework.module
        with torch.no_grad():
            found = self._run(feeds, names)
        return {name: self.framework.array(found[name]) for name in names}

    @exclusive
    def measure(
        self,
        feeds: Fed,
        outputs: Sequence[str],
        cotangents: Callable[[Arrays], list[Arrays]],
        values: Sequence[str],
        wrt: Sequence[str],
    ) -> Measured:
        """The outputs, values and gradients at these tensors by torch.autograd: one forward pass for all cotangents."""
        torch: Any = self.framework.module
        with torch.enable_grad():
            found = self._run(feeds, [*outputs, *values, *wrt], inputs_require_grad=True)
            ys = {name: self.framework.array(found[name]) for name in outputs}
            gradients = autograd(self.framework, found, cotangents(ys), wrt)
        return Measured(ys, {name: self.framework.array(found[name]) for name in values}, gradients)

    def _run(self, feeds: Fed, names: Sequence[str], inputs_require_grad: bool = False) -> dict[str, Any]:
        """The named tensors of one run of the program."""
        torch: Any = self.framework.module
        wanted = set(names)
        tensors, inner = (
            {name: self.framework.tensor(array) for name, array in arrays.items()}
            for arrays in ({**self._constants, **feeds.inputs}, feeds.inner)
        )
        if inputs_require_grad:
            for tensor in (*tensors.values(), *inner.values()):
                tensor.requires_grad_(tensor.is_floating_point())
        found: dict[str, Any] = {name: tensor for name, tensor in inner.items() if name in wanted}

        class Capture(torch.fx.Interpreter):  # type: ignore[misc]
            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                # Decomposition leaves some primitives, such as a variance, which autograd knows as ATen's alone.
                target = getattr(target, "impl_aten", target)
                # Attention kernels lay their output out in several ways: the trace's may take a view, and this not.
                target = torch.ops.aten.reshape.default if target is torch.ops.aten.view.default else target
                args, kwargs = torch.utils._pytree.tree_map(widened, (args, kwargs))
                if target is torch.ops.aten.copy.default:
                    # PyTorch has no derivative of the copy that replaces an assignment in place.
                    return args[1].to(args[0]).expand_as(args[0])
                if target is torch.ops.aten.detach.default:
                    # The exported function has none: docs/targets.md, "Steps, and custom backward passes".
                    target = torch.ops.aten.alias.default
                if target is torch.ops.aten._embedding_bag_forward_only.default:
                    target = torch.ops.aten._embedding_bag.default
                return super().call_function(target, args, kwargs)

            def run_node(self, node: Any) -> Any:
                result = super().run_node(node)
                if node.name in wanted:
                    if inputs_require_grad and not result.requires_grad:
                        result = result.detach().requires_grad_()
                    found[node.name] = result
                return result

        widened = self._widened
        known = self._known(inner, wanted, tensors) if inner else None
        try:
            Capture(self._program.graph_module).run(*self._arguments(tensors), initial_env=known)
        except Exception as error:
            raise BackendError(
                f"the PyTorch source does not run on these inputs ({one_line(error)}). Fix: give inputs that the "
                'original takes, or use backend="onnxruntime"'
            ) from error
        return found

    def _known(
        self, inner: Mapping[str, Any], wanted: Collection[str], inputs: Collection[str]
    ) -> dict[Any, Any]:
        """What a run from inner tensors on need not compute: {node: value}, None where nothing wanted reads it.

        A size that the program asks of what comes before them, such as the number of samples, is theirs.
        """
        nodes = {node.name: node for node in self._program.graph.nodes}
        known = {nodes[name]: tensor for name, tensor in inner.items()}
        sizes = {
            str(symbol): size
            for node, tensor in known.items()
            for symbol, size in zip(node.meta["val"].shape, tensor.shape, strict=True)
        }
        known |= {n: sizes[s] for n in nodes.values() if (s := str(n.meta.get("val"))) in sizes}
        needed: set[Any] = set()
        stack = [nodes[name] for name in wanted]
        while stack:
            node = stack.pop()
            if node not in known and node not in needed:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        lacking = [name for name, own in self._inputs.items() if nodes[own] in needed and name not in inputs]
        if lacking:
            raise AnalysisError(
                f"downstream of {', '.join(inner)} the source still reads its input {lacking[0]!r}. Fix: use "
                'backend="onnxruntime" (--backend onnxruntime)'
            )
        # The placeholders are given their arguments in order, the output its nodes: neither can be left out.
        steps = (node for node in nodes.values() if node.op not in ("placeholder", "output"))
        return known | dict.fromkeys(node for node in steps if node not in needed and node not in known)

    def _arguments(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The program's flat arguments: parameters, buffers and constants, then the user's inputs.

        None stands for an input that a run from inner tensors on does not need.
        """
        user = iter([feeds.get(name) for name in self._onnx_inputs])
        arguments = []
        for spec in self._program.graph_signature.input_specs:
            if _is_tensor(spec):
                arguments.append(next(user))
            elif spec.kind.name == "USER_INPUT":
                # A number or None among the example's arguments is a constant of the program.
                arguments.append(getattr(spec.arg, "value", None))
            elif spec.target in self._program.state_dict:
                # Weights are constants here: no gradient is wanted for them, and none is kept.
                arguments.append(self._widened(self._program.state_dict[spec.target].detach()))
            else:
                arguments.append(self._widened(self._program.constants[spec.target]))
        return arguments

    def _widened(self, value: Any) -> Any:
        """A half-precision tensor, or the name of a half-precision type, in float32; anything else as it is."""
        torch: Any = self.framework.module
        half = (torch.float16, torch.bfloat16)
        if not self._half:
            return value
        if isinstance(value, torch.Tensor):
            return value.float() if value.dtype in half else value
        return torch.float32 if isinstance(value, torch.dtype) and value in half else value


def _is_tensor(spec: Any) -> bool:
    """Return whether an input of the program is a tensor that the user gives."""
    return spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"


def _op_name(node: Any) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]
