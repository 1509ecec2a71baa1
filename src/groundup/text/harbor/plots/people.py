"""Plots about people: a letter in a bottle, a birthday.

In: nothing. Out: `PLOTS`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

BOTTLE = Plot(
    "bottle",
    roles="A B:friend.A C:neighbour.A O:owns.A P:shore.A Q:home.B R:home.C",
    script="""title (dawn | | ) meet / find (old | | ) (
        lonely visit[P=Q] show admit / dance toes
        | wish carry / visit[P=Q] hand quirk? late
        | love deliver / dear march answer bench) coda""",
    acts=(
        act(
            "title", "start", "+plot bottle, +lead A, +known A",
            "{A} and the letter in the bottle",
            "A letter for {A}",
        ),
        act(
            "find", "plot bottle, lead A, calm, at A _, shore A P", "-calm, +letter, +at A P, +found P",
            "{At P} {he A} found a bottle with a letter in it.",
            "{At P} a bottle hit {him A} on the toe, and there was a letter in it.",
            "{At P} lay a green bottle, and in the bottle was a letter.",
        ),
        act(
            "old", "letter, not old", "+old",
            "The paper was yellow, and it was twenty years old.",
            "The letter was twenty years old and smelled of herring.",
        ),
        act(
            "lonely", "letter, lead A, not from _", "+from B, +known B, +errand",
            "\"I have nobody to dance with,\" said the letter. \"Please come soon. Your {B}.\"",
            "\"Whoever finds this,\" said the letter, \"please come and dance with me. {B}.\"",
        ),
        act(
            "show", "from B, letter, lead A, at A P, at B P", "+shown",
            "\"Did you write this?\" asked {A}.",
            "{A} said nothing and held up the letter.",
            "{A} gave a small cough and read the letter aloud.",
        ),
        act(
            "admit", "shown, from B, letter", "-shown, +hope",
            "\"Twenty years ago,\" said {B}, and turned as red as a boiled crab.",
            "{B} read it and blew {his B} nose for a long time.",
        ),
        act(
            "dance", "hope, lead A, from B, found P, at A Q, at B Q", "-hope, +at A P, +at B P, +danced",
            "That evening {A} and {B} danced {at P} until the moon went home.",
            "So {A} took {B} by the hand, and they went to {P} and danced.",
        ),
        act(
            "toes", "danced, lead A, from B", "-danced, +done",
            "{A} stepped on {B}'s toes four times, and {B} said thank you every time.",
            "They danced so well that the crabs came out to look, and {A} took {B}'s arm.",
            "{B} had waited twenty years, and it was worth every one of them.",
        ),
        act(
            "wish", "letter, lead A, owns A O, not from _", "+from B, +known B, +wish O, +errand",
            "\"For my birthday I would like {a O},\" said the letter. \"Your {B}.\"",
            "\"Dear sea,\" said the letter, \"please send me {a O}. Your {B}.\"",
        ),
        act(
            "carry", "wish O, lead A, not has _ O", "+has A O",
            "Now, as it happened, {A} had {a O}, and {he A} took it along.",
            "So {A} ran home and came out with {his A} {O} under {his A} arm.",
        ),
        act(
            "hand", "wish O, from B, has A O, at A P, at B P", "-wish O, +has B O, +new O, +late",
            "{A} said nothing and gave {B} the {O}.",
            "\"The sea sends you this,\" said {A}, and gave {B} the {O}.",
        ),
        act(
            "late", "late, from B, has B O, found P", "-late, -new O, +done",
            "\"So the sea can read,\" said {B}, and took the {O} to {P} to say thank you.",
            "Now {B} goes to {P} every morning, with the {O}, to say thank you.",
        ),
        act(
            "love", "letter, lead A, not from _", "+from B, +to C, +known B, +known C",
            "\"Dear {C},\" said the letter, \"I like you more than herring. Your {B}.\"",
            "\"Dear {C},\" said the letter, \"will you marry me? Your {B}.\"",
        ),
        act(
            "deliver", "to C, letter, lead A, home C R, not at C _", "+at C R, +at A R, +read C",
            "{A} took it to {R}, to {C} the {job C}, who was {busy C}.",
            "{At R} {C} the {job C} was {busy C}. \"You have post,\" said {A}.",
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
            "\"Yes,\" said {C}. \"But what took you so long?\"",
            "\"The answer is yes,\" said {C}, and kissed {B} on the nose.",
        ),
        act(
            "bench", "yes, from B, to C, found P, lead A", "-yes, +done",
            "Now {B} and {C} have a bench {at P}, and one herring for two.",
            "They were married {at P}, and {A} carried the bottle.",
        ),
    ),
)  # fmt: skip

PARTY = Plot(
    "party",
    roles="A B:friend.A C:neighbour.A O:owns.A F:cooks.C P:spot.A Q:home.B R:home.C",
    script="""title (dawn | | ) meet / plan whisper[P=R] sad[P=Q] / lure surprise /
        (gift quirk? | cake bite?) joy coda""",
    acts=(
        act(
            "title", "start", "+plot party, +lead A, +known A, +guest B, +known B",
            "{A} and the birthday of {B}",
            "{A} has a surprise for {B}",
        ),
        act(
            "plan", "plot party, guest B, lead A, calm, at A _", "-calm, +plan",
            "It was {B}'s birthday, and {A} had a secret plan.",
            "It was {B}'s birthday, and {A} was so full of the secret that {he A} hopped.",
            "Today was {B}'s birthday. \"Not a word,\" said {A} to the cat.",
        ),
        act(
            "whisper", "plan, lead A, home C P, not at C _, cooks C F, not brings _ _",
            "+known C, +at C P, +at A P, +brings C F",
            "{At P} {he A} whispered something to {C} the {job C}, who promised to bring {a F}.",
            "{He A} told {C} the {job C}, and {C} promised to bring {a F}.",
        ),
        act(
            "sad", "plan, guest B, home B P, brings _ _, not at B _", "-plan, +at B P, +sad B",
            "Meanwhile {B} the {job B} was {busy B} {at P} and thought that nobody remembered.",
            "{At P} {B} the {job B} was {busy B}, all alone, and sighing.",
        ),
        act(
            "lure", "guest B, lead A, sad B, spot A P, brings C _", "+at A P, +at C P, +called B P",
            "Then {A} sent a note to {B}: \"Come to {P}. There is a whale.\"",
            "\"Help!\" {A} wrote to {B}. \"Come to {P}.\"",
            "\"Come quickly to {P},\" {A} wrote to {B}. \"The cat is stuck.\"",
        ),
        act(
            "surprise", "called B P, sad B", "-called B P, -sad B, +at B P, +party",
            "{B} came running. \"Surprise!\" shouted the whole town, and a gull fell into the soup.",
            "When {B} came to {P}, everybody sang, some of them the same song.",
        ),
        act(
            "gift", "party, lead A, guest B, owns A O, at A P, at B P, not has B _", "+has B O, +new O",
            "{A} gave {B} {his A} own {O} with a ribbon on it.",
            "In a big box from {A} there was a small box, and in it was {his A} own {O}.",
            "From {A} there was {his A} own {O}, and {B} had to cry a little.",
        ),
        act(
            "cake", "party, brings C F, guest B", "-brings C F, -new _, +cake F",
            "{C} carried in the {F} with a candle on top.",
            "Then {C} brought the {F}, and it was as big as a wheel.",
        ),
        act(
            "bite", "cake F, party", "-cake F",
            "There was one bite missing, and Admiral the cat looked at the sky.",
            "Admiral the cat ate the {F} from one side, and {B} from the other.",
            "Soon the {F} was gone, and Admiral the cat was as round as the moon.",
        ),
        act(
            "joy", "party, guest B, lead A, not sad B, not has B _", "-party, +done",
            "{B} was so happy that {he B} forgot how old {he B} was.",
            "\"I thought you had all forgotten,\" said {B}, and had to sit down.",
            "{B} hugged {A} first, and then everybody else, and then the cat.",
        ),
        act(
            "joy", "party, guest B, lead A, has B O", "-party, -new O, +done",
            "{B} hugged {A} first, and then everybody else, and then the {O}.",
            "{B} danced with the {O} until {he B} had to sit down.",
            "\"I thought you had all forgotten,\" said {B}, and kissed the {O}.",
        ),
    ),
)  # fmt: skip

PLOTS = (BOTTLE, PARTY)
