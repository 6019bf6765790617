"""The tree of a chat template -> the same tree, in which all that repeats, builds or compares values calls its budget.

The calls are those of methods of `BoundedEnvironment`: `spend`, `bounded`, `iterated` and `joined`.
"""

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from onelogit.prompts.template_limits import MAX_LOOPS, MAX_NODES, TemplateLimitError

_CHEAP = (nodes.Const, nodes.Neg)  # as the place of an item


class BoundedTree(NodeTransformer):
    """Changes a template's tree in place. Raises TemplateLimitError if it is too large, or nested too deeply."""

    def __init__(self) -> None:
        self._count = 0
        self._depth = 0
        self._constant = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Count a part of the tree, which takes Python some 50 us to compile."""
        self._count += 1
        if self._count > MAX_NODES:
            raise TemplateLimitError(
                f"the chat template calculates more than {MAX_NODES:,} values; it is damaged, or not a chat template"
            )
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> Any:  # noqa: N802
        """Spend each round of a loop, each value that its condition leaves out, and the length of what it reads."""
        self._visit_inside(node)
        node.iter = _call("iterated", node.iter)
        if node.test is not None:
            node.test = _call("bounded", node.test)
        return node

    def visit_Macro(self, node: Any) -> Any:  # noqa: N802
        """Spend each call of a macro, or of a block."""
        self._visit_inside(node)
        return node

    visit_CallBlock = visit_Macro  # noqa: N815

    def visit_TemplateData(self, node: nodes.TemplateData) -> Any:  # noqa: N802
        """Count constant text."""
        self._constant += len(node.data)
        return node

    def visit_Concat(self, node: nodes.Concat) -> Any:  # noqa: N802
        """Join texts only if their sizes are in the budget."""
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_List(self, node: nodes.Expr) -> Any:  # noqa: N802
        """Limit lists and objects, which may contain each other many times."""
        self.generic_visit(node)
        return _call("bounded", node)

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> Any:  # noqa: N802
        """Limit tuples, as lists, unless variables are assigned."""
        self.generic_visit(node)
        return node if node.ctx == "store" else _call("bounded", node)

    def visit_Compare(self, node: nodes.Compare) -> Any:  # noqa: N802
        """Count comparisons, each with the size of what is on its right."""
        self.generic_visit(node)
        for operand in node.ops:
            operand.expr = _bounded_unless_cheap(operand.expr)
        return _call("bounded", node)

    def visit_Getitem(self, node: nodes.Getitem) -> Any:  # noqa: N802
        """Count the size of a part, which is a copy, and of a key, which is hashed."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _call("bounded", node)
        node.arg = _bounded_unless_cheap(node.arg)
        return node

    def _visit_inside(self, node: Any) -> None:
        """Visit the parts of a node whose body may run many times, which spends each run with its constant text."""
        before, self._depth = self._constant, self._depth + 1
        if self._depth > MAX_LOOPS:
            raise TemplateLimitError(
                f"the chat template has more than {MAX_LOOPS} loops or macros in each other; it is damaged, or hostile"
            )
        self.generic_visit(node)
        self._depth -= 1
        spent = _call("spend", nodes.Const(self._constant - before, lineno=node.lineno))
        node.body = [nodes.ExprStmt(spent, lineno=node.lineno), *node.body]


def _bounded_unless_cheap(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, _CHEAP) else _call("bounded", node)


def _call(name: str, *arguments: Any) -> nodes.Call:
    line = arguments[0].lineno
    return nodes.Call(nodes.EnvironmentAttribute(name, lineno=line), [*arguments], [], None, None, lineno=line)
