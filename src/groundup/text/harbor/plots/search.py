"""Plots about things: lost and found, a trade, a theft.

In: nothing. Out: `PLOTS`. How to read a plot: see `Plot` in `plots/__init__.py`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

LOST = Plot(
    "lost",
    roles="A B:friend.A O:owns.A P:spot.A Q:home.B",
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
            "lose", "plot lost, lead A, about O, owns A O, calm, at A _",
            "-calm, +lost O, +owner A O, +worried A, +new O, +errand",
            "This morning {his A} {O} was gone, and it was not under the cat.",
            "Today {he A} looked for {his A} {O}, high and low, and it was gone.",
            "But when {he A} reached for {his A} {O}, there was only air.",
            "But today {he A} was sad, because {his A} {O} was gone.",
            "Then {he A} saw that {his A} {O} was missing.",
        ),
        act(
            "recall", "plot lost, lead A, lost O, spot A P, home B Q", "+maybe P, +maybe Q, -new O, -worried A",
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
            "cat", "asked B, lost O", "-asked B, +trail dunes",
            "\"This morning Admiral the cat was pulling something to the dunes,\" said {B}.",
            "\"Ask the cat,\" said {B}. \"I saw him go to the dunes with something heavy.\"",
        ),
        act(
            "chase", "plot lost, lead A, trail dunes, at A P, at B P",
            "-trail dunes, +at A dunes, +at B dunes, +caught",
            "So {A} and {B} ran to the dunes together.",
            "Off to the dunes went {A}, and {B} went too, to see the fun.",
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
    roles="A B:friend.A C:neighbour.A O:owns.B X:owns.A Y:owns.C P:home.B Q:home.C",
    script="""title (dawn | | ) meet / want quirk? (
        visit price / own swap / (joy | miss undo)
        | visit price / own swap / (joy | miss undo)
        | visit price[X=Y] / hint[X=Y] visit[B=C P=Q] price[B=C O=Y] / own swap[B=C O=Y] return swap[X=Y] joy
        ) coda""",
    acts=(
        act(
            "title", "start", "+plot trade, +lead A, +known A, +known B, +about O, +of B",
            "{A} wants {B}'s {O}",
            "{A} dreams of {B}'s {O}",
        ),
        act(
            "want", "plot trade, lead A, of B, owns B O, about O, calm, at A _", "-calm, +wants A O, +errand, +new O",
            "More than anything in the world {he A} wanted {B}'s {O}.",
            "{He A} had everything but {B}'s {O}.",
            "All night {he A} had dreamed of {B}'s {O}.",
        ),
        act(
            "price", "plot trade, wants A O, lead A, owns B O, at A P, at B P, not has _ O",
            "+has B O, +wants B X, +wants A X, -new _",
            "\"You can have my {O},\" said {B}, \"if you bring me {a X}.\"",
            "\"I will only give my {O} away for {a X},\" said {B}.",
            "\"My {O} for {a X},\" said {B}, and that was that.",
        ),
        act(
            "own", "plot trade, wants A X, owns A X, lead A, not has _ X", "+has A X",
            "As luck would have it, {he A} had {his A} {X} with {him A}.",
            "Now, as it happened, {A} was sitting on {his A} {X}.",
            "{He A} laughed, because {he A} had {his A} {X} under {his A} coat.",
        ),
        act(
            "swap", "plot trade, wants A O, wants B X, has A X, has B O, at A P, at B P",
            "+has A O, +has B X, -wants A O, -wants A X, -wants B X",
            "So {A} gave {B} the {X}, and {B} gave {A} the {O}.",
            "{A} put down the {X} and picked up the {O}, and {B} was glad.",
            "{B} hugged the {X} and gave the {O} to {A}.",
        ),
        act(
            "hint", "plot trade, wants A X, owns C X, lead A, at A P, at B P, wants B X, not has _ X",
            "+errand, +heading back, +known C",
            "{A} had no {X}, but {C} had one.",
            "\"{C} has one,\" said {A}. \"Wait here.\"",
        ),
        act(
            "joy", "plot trade, lead A, about O, has A O, not wants A _", "+done",
            "{A} danced home with the {O}.",
            "{A} showed the {O} to everybody, even to the gulls.",
            "All the way home {A} held the {O} like a baby.",
        ),
        act(
            "miss", "plot trade, lead A, about O, has A O, has B X, owns A X, at B _", "+sorry",
            "But that night {A} missed the {X}, and {B} missed the {O}.",
            "But {A} could not sleep without the {X}, and {B} could not sleep without the {O}.",
        ),
        act(
            "undo", "sorry, lead A, has A O, has B X, owns A X, owns B O", "-sorry, +has A X, +has B O, +done",
            "So {A} took back the {X}, {B} took back the {O}, and they had tea.",
            "At midnight they met, and {A} got the {X} back, and {B} the {O}.",
        ),
    ),
)  # fmt: skip

THEFT = Plot(
    "theft",
    roles="A B:friend.A F:cooks.A P:home.B",
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
            "bake", "plot theft, lead A, about F, cooks A F, calm, at A _", "-calm, +made F",
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
            "paws", "alibi B, stolen F", "-alibi B, +clue cat",
            "Then {B} pointed to small wet paw prints, and they went to the dunes.",
            "On the ground there were small wet paw prints, all the way to the dunes.",
        ),
        act(
            "feather", "alibi B, stolen F", "-alibi B, +clue gull",
            "Then a white feather came flying, and then another, from the rocks.",
            "Then {B} found white feathers and crumbs, all the way to the rocks.",
        ),
        act(
            "track", "plot theft, lead A, at A P, at B P, clue cat", "+at A dunes, +at B dunes, +near",
            "{A} and {B} crept to the dunes without a sound.",
            "So {A} and {B} ran to the dunes together.",
        ),
        act(
            "track", "plot theft, lead A, at A P, at B P, clue gull", "+at A rocks, +at B rocks, +near",
            "{A} and {B} crept to the rocks without a sound.",
            "So {A} and {B} ran to the rocks together.",
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
