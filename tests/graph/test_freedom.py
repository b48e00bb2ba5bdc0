from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.graph.freedom import Freedom, Held, freedom
from compress.graph.operands import layer_operands, output_dims

OUTPUT = "an output of the network keeps its size"
DATA = "meets the network's input, whose size is given along this dimension"


def counts(found: Freedom) -> tuple[int, int, dict[str, int]]:
    return found.prunable, found.total, {h.reason: h.indices for h in found.held}


def test_an_mlp_is_free_but_for_its_input_and_its_classes(lab: Any) -> None:
    module = lab.randomised(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval())
    found = freedom(lab.analyse(module, torch.randn(2, 3)))
    assert counts(found) == (8, 8, {})  # 4 rows, 4 columns; 3 inputs and 2 classes are left out
    assert found.share == 1.0


def test_kernel_positions_and_the_channels_of_an_image_are_left_out(lab: Any) -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(24, 5)]
    found = freedom(lab.analyse(lab.randomised(nn.Sequential(*layers).eval()), torch.randn(2, 3, 6, 6)))
    assert counts(found) == (4 + 4 + (4 + 6) + 24, 42, {})


def test_a_normalised_input_is_still_the_input(lab: Any) -> None:
    module = lab.network(lambda m, x: m.b(m.a((x * 2 - 1).flatten(1))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert counts(freedom(lab.analyse(module, torch.randn(2, 1, 3)))) == (8, 8, {})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_count(lab: Any, kind: Any) -> None:
    rnn = kind(3, 6, 2, batch_first=True, bidirectional=True)
    module = lab.network(lambda m, x: m.head(m.rnn(x)[0]), rnn=rnn, head=nn.Linear(12, 4))
    rows = sum(p.shape[0] for p in rnn.parameters() if p.dim() > 1)
    columns = 4 * 6 + 2 * 12  # of the recurrent weights, and of the second layer; the first reads the input
    assert counts(freedom(lab.analyse(module, torch.randn(2, 5, 3)))) == (rows + columns + 12,) * 2 + ({},)


def test_recurrent_cells_count(lab: Any) -> None:
    module = lab.network(lambda m, x: m.head(m.cell(x)), cell=nn.GRUCell(3, 6), head=nn.Linear(6, 4))
    assert counts(freedom(lab.analyse(module, torch.randn(2, 3)))) == (18 + 18 + 6 + 6,) * 2 + ({},)


def test_outputs_of_weights_that_are_written_the_other_way(lab: Any) -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 6))
            self.first, self.up = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.up(x).mean((2, 3)) + x.mean((2, 3)) @ self.weight

    found = output_dims(lab.analyse(Swapped().eval(), torch.randn(2, 3, 4, 4)))
    assert found == {"first.weight": 0, "up.weight": 1, "weight": 1}


def test_a_stream_that_is_the_output_counts_as_held(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        h = m.stem(x)
        return h + m.down(torch.relu(m.up(h)))

    module = lab.network(forward, stem=nn.Linear(2, 3), up=nn.Linear(3, 5), down=nn.Linear(5, 3))
    found = freedom(lab.analyse(module, torch.randn(2, 2)))
    assert counts(found) == (10, 19, {OUTPUT: 9})  # stem's rows, up's columns, down's rows
    assert found.held == (Held(OUTPUT, "output", "", 9),)
    assert found.share == pytest.approx(10 / 19)
    assert counts(freedom(lab.analyse(module, torch.randn(2, 2), prune_outputs=True))) == (19, 19, {})


def test_classes_seen_through_a_view_are_left_out(lab: Any) -> None:
    module = lab.network(lambda m, x: m.b(m.a(x)).view(-1, 3, 2), a=nn.Linear(2, 4), b=nn.Linear(4, 6))
    assert counts(freedom(lab.analyse(module, torch.randn(2, 2)))) == (8, 8, {})


def test_rows_of_an_embedding_are_left_out_also_where_they_are_the_classes(lab: Any) -> None:
    table = nn.Embedding(7, 4)
    head = nn.Linear(4, 7, bias=False)
    head.weight = table.weight
    module = lab.network(lambda m, x: m.head(m.mid(m.table(x))), table=table, mid=nn.Linear(4, 4), head=head)
    found = freedom(lab.analyse(module, torch.tensor([[1, 2], [3, 4]])))
    assert counts(found) == (4 + 4 + 4, 12, {})  # table's columns are head's; mid's rows; mid's columns


def test_what_is_added_to_the_data_is_held_and_named(lab: Any) -> None:
    module = lab.network(lambda m, x: m.b(m.a(x) + x), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    found = freedom(lab.analyse(module, torch.randn(2, 4)))
    assert counts(found) == (0, 8, {DATA: 8})  # a's rows, b's columns
    assert found.share == 0.0


def test_units_that_blocks_keep_from_going_are_held(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        h = torch.cat([m.a(x), m.b(x), m.c(x)], 1)  # groups of 2 + 3 and of 5: no smaller equal numbers
        return m.d(torch.nn.functional.group_norm(h, 2))

    module = lab.network(forward, a=nn.Linear(1, 2), b=nn.Linear(1, 3), c=nn.Linear(1, 5), d=nn.Linear(10, 4))
    found = freedom(lab.analyse(module, torch.randn(2, 1)))
    assert counts(found) == (0, 20, {"no smaller number of these indices leaves its blocks equal": 20})


def test_shuffles_that_tie_channels_together_are_named(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        h = m.a(x)
        return m.b(h + h.reshape(-1, 2, 3).transpose(1, 2).reshape(-1, 6))  # 0 3 1 4 2 5 is added to 0 1 2 3 4 5

    found = freedom(lab.analyse(lab.network(forward, a=nn.Linear(2, 6), b=nn.Linear(6, 3)), torch.randn(2, 2)))
    # Blocks lose the same positions: 0 and 3, 1 and 4, 2 and 5. The sum: 1 and 3, 2 and 1, 3 and 4, 4 and 2.
    assert counts(found) == (0, 12, {"views in between tie these indices to each other: all would go or none": 12})


def test_weights_are_found_behind_other_constants(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        h = torch.relu(x @ (m.a * 2).t())
        return torch.einsum("bi,oi->bo", h, m.c)

    module = lab.network(forward, a=nn.Parameter(torch.randn(5, 3)), c=nn.Parameter(torch.randn(2, 5)))
    coupling = lab.analyse(module, torch.randn(2, 3))
    assert [(o.parameters, o.summed, o.reads_input) for o in layer_operands(coupling)] == [
        (("a",), (-2,), True),
        (("c",), (1,), False),
    ]
    assert counts(freedom(coupling)) == (10, 10, {})


def test_position_tables_are_no_layer_weights(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        return m.b((m.a(x) + m.places).mean(1))

    parts = {"a": nn.Linear(2, 4), "places": nn.Parameter(torch.randn(1, 3, 4)), "b": nn.Linear(4, 2)}
    assert counts(freedom(lab.analyse(lab.network(forward, **parts), torch.randn(2, 3, 2)))) == (8, 8, {})


def test_a_table_that_layers_read_as_data_is_no_weight(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        return m.b((m.q(x) @ m.k(m.places).t()).softmax(-1) @ m.v(m.places))

    parts = {name: nn.Linear(4, 6) for name in ("q", "k", "v")}
    module = lab.network(forward, places=nn.Parameter(torch.randn(5, 4)), b=nn.Linear(6, 2), **parts)
    # rows of q and k, rows of v with the columns of b, columns of k and v (those of the table)
    assert counts(freedom(lab.analyse(module, torch.randn(2, 4)))) == (12 + 12 + 8, 32, {})


def test_a_network_without_layers_has_no_share() -> None:
    assert Freedom(0, ()).share == 0.0
