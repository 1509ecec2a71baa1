"""Plots about people: a letter in a bottle, a birthday, a pot of soup, a ghost.

In: nothing. Out: `PLOTS`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

BOTTLE = Plot(
    "bottle",
    roles="A B C O P:shore Q=home.B R=home.C",
    script="""title dawn meet / find old? (
        lonely visit[P=Q] show admit / (stay dance[P=P] toes)
        | wish old2? carry visit[P=Q] hand quirk? / late
        | love deliver dear / march answer bench) coda""",
    acts=(
        act(
            "title", "start", "+plot bottle, +lead A, +known A",
            "{A} and the letter in the bottle",
            "A letter for {A}",
        ),
        act(
            "find", "plot bottle, lead A, calm, at A _, shore P", "-calm, +letter, +at A P",
            "{At P} {he A} found a bottle with a letter in it.",
            "{He A} was walking {at P} when a bottle rolled up and hit {him A} on the toe. There was a letter in it.",
            "{At P} lay a green bottle, and in the bottle was a letter.",
        ),
        act(
            "old", "letter, not old", "+old",
            "The paper was yellow, and it was twenty years old.",
            "The letter was twenty years old and smelled of herring.",
        ),
        act(
            "lonely", "letter, lead A, not from _", "+from B, +known B, +errand",
            "\\"I have nobody to dance with,\\" said the letter. \\"Please come soon. Your {B}.\\"",
            "\\"Whoever finds this,\\" said the letter, \\"please come and dance with me. {B}.\\"",
        ),
        act(
            "show", "from B, letter, lead A, at A P, at B P", "+shown",
            "\\"Did you write this?\\" asked {A}.",
            "{A} said nothing and held up the letter.",
        ),
        act(
            "admit", "shown, from B, letter", "-shown, +hope",
            "\\"Twenty years ago,\\" said {B}, and turned as red as a boiled crab.",
            "{B} read it and blew {his B} nose for a long time. \\"I was young,\\" said {he B}.",
        ),
        act(
            "dance", "hope, lead A, from B, shore R, at A P, at B P", "-hope, +at A R, +at B R, +danced",
            "That evening {A} and {B} danced {at R} until the moon went home.",
            "So {A} took {B} by the hand, and they went to {R} and danced until it was dark.",
        ),
        act(
            "toes", "danced, lead A, from B", "-danced, +done",
            "{A} stepped on the toes of {B} four times, and {B} said thank you every time.",
            "{B} had waited twenty years, and it was worth every one of them.",
        ),
        act(
            "wish", "letter, lead A, not from _", "+from B, +known B, +wish O, +errand",
            "\\"For my birthday I would like {a O},\\" said the letter. \\"Your {B}.\\"",
            "\\"Dear sea,\\" said the letter, \\"please send me {a O}. Your {B}.\\"",
        ),
        act(
            "carry", "wish O, lead A, not has _ O", "+has A O",
            "It so happened that {A} had {a O}, and {he A} took it along.",
            "So {A} ran home and came out with {a O} under {his A} arm.",
        ),
        act(
            "hand", "wish O, from B, has A O, at A P, at B P", "-wish O, +has B O, +new O, +late",
            "{A} said nothing and gave {B} the {O}.",
            "\\"The sea sends you this,\\" said {A}, and gave {B} the {O}.",
        ),
        act(
            "late", "late, from B, has B O", "-late, -new O, +done",
            "\\"The sea is slow,\\" said {B}, and hugged the {O}, \\"but it is kind.\\"",
            "{B} laughed and cried at the same time, and slept with the {O} in {his B} arms.",
        ),
        act(
            "love", "letter, lead A, not from _", "+from B, +to C, +known B, +known C",
            "\\"Dear {C},\\" said the letter, \\"I like you more than herring. Your {B}.\\"",
            "\\"Dear {C}, will you marry me?\\" said the letter. \\"If not, please send the bottle back. Your {B}.\\"",
        ),
        act(
            "deliver", "to C, letter, lead A, home C R, not at C _", "+at C R, +at A R, +read C",
            "{A} ran to {R} and gave the letter to {C} the {job C}, who was {busy C}.",
            "{At R} {C} the {job C} was {busy C}. \\"You have post,\\" said {A}.",
        ),
        act(
            "dear", "read C, to C", "-read C, +moved C",
            "{C} read it three times and put on a clean hat.",
            "{C} read it, sat down, stood up and read it again.",
        ),
        act(
            "march", "moved C, from B, home B Q, not at B _", "-moved C, +at C Q, +at B Q, +meeting",
            "Then {C} went straight to {Q}, where {B} the {job B} was {busy B}.",
            "{C} ran to {Q}. There was {B} the {job B}, {busy B}.",
        ),
        act(
            "answer", "meeting, from B, to C", "-meeting, +yes",
            "\\"Yes,\\" said {C}. \\"Yes, you slow, silly man,\\" hm",
        ),
        act(
            "bench", "yes, from B, to C", "-yes, +done",
            "Now {B} and {C} share one bench, one blanket and one herring.",
            "They were married by Sunday, and {A} carried the bottle.",
        ),
    ),
)  # fmt: skip
