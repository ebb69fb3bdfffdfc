"""Word problems of mathematics: stories with numbers drawn anew each time. Our own material."""

from __future__ import annotations

from numpy.random import Generator

from edge.distillation.words import NAMES, PLACES

_THINGS = (
    "apples", "marbles", "books", "stickers", "coins", "pencils", "cookies", "stamps", "eggs", "flowers", "tickets", "cards",
    "oranges", "balloons", "shells", "bottles", "chairs", "sandwiches", "photos", "candles", "cupcakes", "fish", "bricks",
)  # fmt: skip
_STORIES = (
    "{name} has {a} {thing}. {other} gives {name} {b} more, and then {name} loses {c}. How many {thing} does {name} have now?",
    "A box holds {b} {thing}. A shop in {place} orders {a} boxes and sells {c} {thing} on the first day. How many are left?",
    "{name} earns ${b} per hour and works {c} hours a week. How much does {name} earn in {d} weeks?",
    "A train travels at {e} km per hour. How far does it go in {c} hours? If it then stops for 30 minutes, how long has the trip to {place} taken?",
    "{name} buys {c} {thing} for ${d} each and pays with a ${e} note. How much change does {name} get?",
    "{other} reads {b} pages a day. The book has {e} pages. After {d} days, how many pages are left?",
    "There are {e} students in a school. {p}% of them walk to school. How many students do not walk?",
    "A jacket costs ${e}. It is reduced by {p}%. What is the new price?",
    "{name} is {d} years older than {other}. In {c} years the sum of their ages will be {e}. How old is {name} today?",
    "A recipe for {d} people needs {e} grams of flour. How much flour is needed for {b} people?",
    "A garden is {b} metres long and {d} metres wide. How much does a fence around it cost at ${c} per metre?",
    "{name} shares {e} {thing} equally among {d} friends and keeps the rest. How many does {name} keep?",
    "In {place}, a taxi costs ${c} plus ${d} for every kilometre. What does a ride of {b} kilometres cost?",
    "{name} saves ${d} in the first week, and every week twice as much as in the week before. How much has {name} saved after {c} weeks?",
    "A tank holds {e} litres. It is filled with {d} litres per minute, while {c} litres per minute leak out. How long does it take to fill it?",
    "{name} and {other} together have {e} {thing}. {name} has {d} more than {other}. How many does each of them have?",
    "A farmer has {a} chickens. Each lays {c} eggs a week. He sells eggs in boxes of 12 for ${d}. How much money does he make in {b} weeks?",
    "The average of three numbers is {b}. Two of them are {a} and {c}. What is the third number?",
    "What is {a} * {b} - {e} / {d}?",
    "Solve for x: {c}x + {a} = {e}.",
    "{name} runs {c} laps of {e} metres each on {d} days a week. How many kilometres is that in a week?",
    "A phone plan costs ${a} a month plus ${c} for each gigabyte. {name} used {d} gigabytes in {place}. What is the bill for {b} months?",
)  # fmt: skip
_ASKS = (
    "{story}",
    "{story}",
    "{story} Let's think step by step.",
    "Solve this problem and show your work: {story}",
    "{story} Give the final answer as a number.",
    "Question: {story}\nAnswer:",
)


def word_problem(rng: Generator) -> str:
    """Return one problem as a user would ask it."""
    story = _STORIES[rng.integers(len(_STORIES))].format(
        name=NAMES[rng.integers(len(NAMES) - 2)],
        other=NAMES[rng.integers(len(NAMES))],
        thing=_THINGS[rng.integers(len(_THINGS))],
        place=PLACES[rng.integers(len(PLACES))],
        a=rng.integers(11, 90),
        b=rng.integers(4, 40),
        c=rng.integers(2, 10),
        d=rng.integers(2, 13),
        e=rng.integers(50, 500),
        p=5 * rng.integers(1, 16),
    )
    return _ASKS[rng.integers(len(_ASKS))].format(story=story)
