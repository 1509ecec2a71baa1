"""Plots about things: lost and found, a long trade, a theft.

In: nothing. Out: `PLOTS`. How to read a plot: see `Plot` in `plots/__init__.py`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

LOST = Plot(
    "lost",
    roles="A B O P:place Q=home.B R:shore",
    script="""title (dawn | | ) meet / lose quirk? (
        recall look (air | gull | | | ) / visit[P=Q] ask[P=Q] found[R=P] / give thanks
        | react? visit[P=Q] ask / cat chase nap / (thanks | praise) shelf?
        | react? (air | gull | | | ) / visit[P=Q] ask hand blush / shelf?) coda""",
    acts=(
        act(
            "title", "start", "+plot lost, +lead A, +known A, +about O",
            "{A} and the lost {O}",
            "Where is {A}'s {O}?",
        ),
        act(
            "lose", "plot lost, lead A, about O, calm, at A _",
            "-calm, +lost O, +owner A O, +worried A, +new O, +errand",
            "This morning {his A} {O} was gone, and it was not under the cat.",
            "Today {he A} looked for {his A} {O}, high and low, and it was gone.",
            "But when {he A} reached for {his A} {O}, there was only air.",
            "But today {he A} was sad, because {his A} {O} was gone.",
            "Then {he A} saw that {his A} {O} was missing.",
        ),
        act(
            "recall", "plot lost, lead A, lost O", "+maybe P, +maybe Q, -new O, -worried A",
            "The day before, {he A} had taken the {O} to {P} and to {Q}.",
            "Yesterday {he A} had used the {O} {at P}, and later {at Q}.",
        ),
        act(
            "look", "maybe P, lost O, lead A, at A _", "-maybe P, +looked P, +at A P",
            "So {he A} looked {at P}, but found only a boot and a surprised crab.",
            "First {he A} went to {P} and looked under everything that had an under.",
            "{At P} {he A} asked a gull, and the gull only shook its head.",
            "{At P} {he A} turned over every stone, and said sorry to the crabs.",
            "{At P} {he A} found one button, two boots and no {O}.",
        ),
        act(
            "ask", "plot lost, lost O, lead A, at A P, at B P", "+asked B",
            "\"Have you seen my {O}?\" asked {A}.",
            "\"My {O} has run away,\" said {A}.",
            "\"Has my {O} been here?\" asked {A}.",
            "{A} asked {B} about the {O}.",
        ),
        act(
            "found", "asked B, lost O, looked R", "-asked B, -lost O, +has B O",
            "\"I found it {at R},\" said {B}, \"and we have been so happy together.\"",
            "\"I found it {at R},\" said {B}, \"and thought it was a present from the sea.\"",
            "\"I found it {at R},\" said {B}, \"and I have been telling everybody that it is mine.\"",
        ),
        act(
            "give", "has B O, owner A O, at A P, at B P", "+has A O, +solved",
            "{B} gave the {O} back to {A} with a small bow.",
            "Then {B} put the {O} into {A}'s arms and wished it good luck.",
            "{B} wiped the {O} with a sleeve and gave it back to {A}.",
        ),
        act(
            "thanks", "solved, lead A, at A P, at B P", "-solved, +done",
            "{A} thanked {B} with {gift A}.",
            "{A} said thank you three times and gave {B} {gift A}.",
            "{A} was so glad that {he A} gave {B} {gift A}.",
            "\"You are a good friend,\" said {A}, and gave {B} {gift A}.",
        ),
        act(
            "cat", "asked B, lost O", "-asked B, +trail R",
            "\"This morning Admiral the cat was pulling something to {R},\" said {B}.",
            "\"Ask the cat,\" said {B}. \"I saw him go to {R} with something heavy.\"",
        ),
        act(
            "chase", "plot lost, lead A, trail R, shore R, at A P, at B P", "-trail R, +at A R, +at B R, +caught",
            "So {A} and {B} ran to {R} together.",
            "Off to {R} went {A}, and {B} went too, to see the fun.",
        ),
        act(
            "nap", "caught, lost O, lead A", "-caught, -lost O, +has A O, +solved",
            "There lay Admiral the cat, fast asleep on the {O}.",
            "Admiral the cat was showing the {O} to a gull, and the gull was not pleased to share.",
            "On top of the {O}, like a king, sat Admiral the cat.",
        ),
        act(
            "praise", "solved, lead A, at A P, at B P", "-solved, +done",
            "{A} waited until the cat woke up, because it would have been rude not to.",
            "\"Good cat,\" said {A}. \"Bad cat,\" said {B}, and both were right.",
        ),
        act(
            "hand", "asked B, lost O, lead A", "-asked B, -lost O, +has A O, +silly A",
            "\"It is in your other hand,\" said {B} after a long time.",
            "\"You are holding it,\" said {B}, and began to laugh.",
        ),
        act(
            "blush", "silly A, has A O", "-silly A, +done",
            "{A} looked at the {O}, and the {O} looked at {A}.",
            "{A} turned as red as a boiled crab, and then {he A} laughed too.",
        ),
        act(
            "shelf", "plot lost, done, has A O, owner A O", "+home again",
            "That evening the {O} was back in its place, and {A} wished it good night.",
            "From that day on {A} tied the {O} to the bed at night.",
        ),
    ),
)  # fmt: skip

TRADE = Plot(
    "trade",
    roles="A B C O X Y P=home.B Q=home.C",
    script="""title (dawn | | ) meet / want (
        quirk? (air | gull | | | ) visit price / own swap
        | quirk visit price / own swap
        | visit price / hint visit[B=C P=Q] price[B=C O=X X=Y] own[X=Y] swap[B=C O=X X=Y] return swap sum?
        ) / joy coda""",
    acts=(
        act(
            "title", "start", "+plot trade, +lead A, +known A, +about O",
            "{A} wants {a O}",
            "{A} and the long way to {a O}",
        ),
        act(
            "want", "plot trade, lead A, about O, calm, at A _", "-calm, +wants A O, +errand, +new O",
            "More than anything in the world {he A} wanted {a O}.",
            "{He A} had everything but {a O}.",
            "Only one thing was missing in {his A} life, and that was {a O}.",
            "All night {he A} had dreamed of {a O}.",
        ),
        act(
            "price", "plot trade, wants A O, lead A, at A P, at B P, not has _ O", "+has B O, +wants B X, +wants A X",
            "{B} had {a O}. \"You can have it,\" {he B} said, \"if you bring me {a X}.\"",
            "\"I have {a O},\" said {B}, \"but I will only give it away for {a X}.\"",
            "\"My {O} for {a X},\" said {B}, and that was that.",
        ),
        act(
            "own", "plot trade, wants A X, lead A, not has _ X", "+has A X",
            "As luck would have it, {he A} had {a X} in {his A} bag.",
            "Now, as it happened, {A} was sitting on {a X}.",
            "{He A} looked in {his A} bag, and there was {a X}.",
            "{He A} laughed, because under {his A} coat {he A} had {a X}.",
        ),
        act(
            "swap", "plot trade, wants A O, wants B X, has A X, has B O, at A P, at B P",
            "+has A O, +has B X, -wants A O, -wants A X, -wants B X",
            "So {A} gave {B} the {X}, and {B} gave {A} the {O}.",
            "{A} put down the {X} and picked up the {O}, and {B} was glad.",
            "{B} hugged the {X} and gave the {O} to {A}.",
        ),
        act(
            "hint", "plot trade, wants A X, lead A, at A P, at B P, wants B X, not has _ X", "+errand, +heading back",
            "{A} had no {X}, but {he A} knew somebody who did.",
            "{A} had no {X}. \"Wait here,\" {he A} told {B}.",
        ),
        act(
            "sum", "plot trade, about O, has A O, has B X, has C Y, lead A", "+told",
            "So {A} had the {O}, {B} had the {X}, {C} had the {Y}, and all was well.",
        ),
        act(
            "joy", "plot trade, lead A, about O, has A O, not wants A _", "+done",
            "{A} danced home with the {O}.",
            "{A} showed the {O} to everybody, even to the gulls.",
            "All the way home {A} held the {O} like a baby.",
            "\"It was worth every step,\" {A} told the {O}.",
        ),
    ),
)  # fmt: skip

THEFT = Plot(
    "theft",
    roles="A B F P=home.B R:shore",
    script="""title (dawn | | ) meet / bake gone react? (air | gull | | | | ) (
        suspect alibi paws / track kittens | suspect alibi feather / track gulls | suspect / chin confess
        ) second / coda""",
    acts=(
        act(
            "title", "start", "+plot theft, +lead A, +known A, +about F",
            "Who took {A}'s {F}?",
            "{A} and the stolen {F}",
        ),
        act(
            "bake", "plot theft, lead A, about F, calm, at A _", "-calm, +made F",
            "Today {he A} had made {a F} and put it by the window.",
            "For dinner {he A} had {a F}, and it smelled of heaven.",
            "{He A} put {a F} by the open window, only for a minute.",
        ),
        act(
            "gone", "made F, lead A", "-made F, +stolen F, +worried A",
            "A minute later the {F} was gone.",
            "But somebody was hungry, and soon the {F} was gone.",
            "{He A} turned round to sneeze, and then there was no {F}.",
            "Then {he A} looked again, and even the smell of the {F} was gone.",
        ),
        act(
            "suspect", "stolen F, lead A, home B P, not at B _, not suspect _",
            "+known B, +at B P, +at A P, +suspect B, -worried A",
            "Now {B} the {job B} was very fond of {F}, so {A} marched to {P}.",
            "So {he A} went to {P} and looked {B} the {job B} in the eye.",
            "{A} went straight to {P}, because {B} the {job B} loved {F}.",
        ),
        act(
            "alibi", "suspect B, stolen F", "-suspect B, +alibi B",
            "\"It was not me,\" said {B}. \"I have been {busy B} all day.\"",
            "{B} was hurt. \"I have been {busy B} all day,\" {he B} said.",
            "{B} had been {busy B} all morning and had not seen any {F}.",
            "\"Me?\" said {B}. \"I never eat {F} while I am {busy B}.\"",
        ),
        act(
            "paws", "alibi B, stolen F", "-alibi B, +clue cat, +trail R",
            "Then {B} pointed to small wet paw prints, and they went to {R}.",
            "On the ground there were small wet paw prints, all the way to {R}.",
        ),
        act(
            "feather", "alibi B, stolen F", "-alibi B, +clue gull, +trail R",
            "Then a white feather came flying, and then another, from {R}.",
            "Then {B} found white feathers and crumbs, all the way to {R}.",
        ),
        act(
            "track", "plot theft, lead A, at A P, at B P, trail R, shore R", "-trail R, +at A R, +at B R, +near",
            "{A} and {B} crept to {R} without a sound.",
            "So {A} and {B} ran to {R} together.",
        ),
        act(
            "kittens", "clue cat, near, stolen F", "-near, -clue cat, -stolen F, +guilty cat",
            "There sat Admiral the cat, giving the {F} to three thin kittens.",
            "There was the {F}, with four kittens in it, and Admiral the cat looked at the sky.",
        ),
        act(
            "gulls", "clue gull, near, stolen F", "-near, -clue gull, -stolen F, +guilty gull",
            "There stood Gustav the gull, cutting the {F} into nine pieces for nine gulls.",
            "There was Gustav the gull with the {F} on his head, for it was his birthday.",
        ),
        act(
            "chin", "suspect B, stolen F", "-suspect B, +crumbs B",
            "There were crumbs all over {B}.",
            "\"What {F}?\" asked {B}, with crumbs on both ears.",
            "{B} said nothing, because {his B} mouth was full.",
        ),
        act(
            "confess", "crumbs B, stolen F", "-crumbs B, -stolen F, +guilty B",
            "\"It called my name,\" said {B}, \"and I came.\"",
            "\"I was only keeping it warm,\" said {B}, and turned red.",
            "\"I only wanted to smell it,\" said {B}, \"but my nose was hungry.\"",
        ),
        act(
            "second", "guilty cat, lead A, about F", "-guilty cat, +done",
            "From that day on {A} made two, one for the window and one for the cat.",
            "{A} wanted to be angry, but the smallest kitten sneezed.",
        ),
        act(
            "second", "guilty gull, lead A, about F", "-guilty gull, +done",
            "{A} wanted to be angry, but all the gulls took a bow.",
            "From that day on {A} made two, one for the window and one for the gulls.",
        ),
        act(
            "second", "guilty B, lead A, at B _, about F", "-guilty B, +done",
            "So {A} and {B} made another {F} and ate it together.",
            "From that day on {A} made two, one for the window and one for {B}.",
        ),
    ),
)  # fmt: skip

PLOTS = (LOST, TRADE, THEFT)
