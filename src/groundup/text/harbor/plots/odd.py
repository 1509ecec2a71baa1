"""Plots about odd jobs: something to repair, somebody small to look after.

In: nothing. Out: `PLOTS`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

REPAIR = Plot(
    "repair",
    roles="A B:friend.A M X:owns.B P:stands.M Q:home.B",
    script="""title (dawn | | ) meet / fail lack (air | gull | | | | ) / visit[P=Q] lend race fix marvel / (
        restore[P=Q] | remain) coda""",
    acts=(
        act(
            "title", "start", "+plot repair, +lead A, +known A, +job M",
            "{A} and the broken {M}",
            "{A} mends the {M}",
        ),
        act(
            "fail", "plot repair, job M, stands M P, calm", "-calm, +broken M",
            "The {M} {at P} had stopped, and the festival was tomorrow.",
            "\"The {M} {at P} is broken,\" said everybody, and looked at {A}.",
            "The {M} {at P} was broken, and nobody had any idea.",
        ),
        act(
            "lack", "broken M, stands M P, lead A, not lacks _", "+at A P, +lacks X, +errand",
            "{A} looked inside. All it needed was {a X}.",
            "{A} took it to pieces, and there was a hole in it, just as big as {a X}.",
            "\"All it needs is {a X},\" said {A}, and hit it with a hammer.",
            "{A} talked to it kindly, but what it needed was {a X}.",
        ),
        act(
            "lend", "lacks X, owns B X, lead A, at A P, at B P", "-lacks X, +has A X, +owner B X, +heading back",
            "{B} gave {A} the {X} from under the bed.",
            "{B} had {a X}, and {A} promised to be nice to it.",
            "{B} had {a X} and gave it to {A}. \"But it bites,\" {he B} said.",
        ),
        act(
            "race", "broken M, stands M P, has A X, lead A, not at A P, heading back", "-heading back, +at A P",
            "{A} ran back to {P} with the {X} under {his A} arm.",
            "{A} ran back to {P} with the {X} on {his A} head.",
        ),
        act(
            "fix", "broken M, stands M P, at A P, has A X, owner B X, lead A", "-broken M, +mended M",
            "{He A} pushed the {X} into the {M} and turned it twice.",
            "In went the {X}, and {A} gave the {M} a kick.",
            "{He A} put the {X} into the {M}, shut {his A} eyes and pulled.",
        ),
        act(
            "marvel", "mended M", "-mended M, +works M",
            "And the {M=bell} rang, so loudly that the fish came up to look.",
            "And the {M=clock} went again, and it was only four hours wrong.",
            "And the {M=pump} gave water again, with only a small taste of herring.",
            "And the {M=lamp} shone again, so brightly that the owls put on hats.",
            "And the {M=wheel} turned again, and so did everybody's head.",
        ),
        act(
            "restore", "works M, owner B X, has A X, at B P, lead A", "-works M, +at A P, +has B X, +done",
            "Then {A} took the {X} back to {B} {at P}, and {gift A} too.",
            "The {X} was black with oil, but {A} washed it and took it back to {B}.",
        ),
        act(
            "remain", "works M, owner B X, has A X, lead A", "-works M, +done",
            "The {X} had to stay in the {M}, so {A} gave {B} {gift A} for it.",
            "The {X} is still in there, and {B} shows it to every visitor.",
        ),
    ),
)  # fmt: skip

FOUNDLING = Plot(
    "foundling",
    roles="A B:friend.A N V:pet.N P:shore.A Q:home.A R:home.B",
    script="""title (dawn | | ) meet / stray name bring (air | gull | | | | ) (
        cry visit[P=R] puzzle homesick[Q=P] / carry mother farewell
        | eat visit[P=R] beg keep / settle[P=R]) coda""",
    acts=(
        act(
            "title", "start", "+plot foundling, +lead A, +known A, +about N",
            "{A} and the little {N}",
            "{A} finds {a N}",
        ),
        act(
            "stray", "plot foundling, lead A, calm, at A _, about N, shore A P", "-calm, +at A P, +stray N P",
            "{At P} {he A} found a wet little {N}, all alone.",
            "Something sneezed {at P}, and {he A} found a very small {N}.",
            "{At P} a little {N} looked at {him A} as if {he A} were late.",
        ),
        act(
            "name", "stray N P, pet N V, lead A", "-stray N P, +called N V, +nest P",
            "{He A} named it {V}, because it looked like one.",
            "\"I will call you {V},\" said {A}, and the {N} sneezed.",
        ),
        act(
            "bring", "called N V, lead A, home A Q, nest P, at A P", "+at A Q, +guest V",
            "{A} put {V} into {his A} hat and carried it home to {Q}.",
            "So {V} came to live {at Q}, in a drawer with socks.",
        ),
        act(
            "cry", "guest V, called N V, lead A", "-guest V, +cries V, +errand",
            "But {V} cried all night, and then all day.",
            "But {V} would not eat and would not sleep, and cried like a door.",
        ),
        act(
            "puzzle", "cries V, lead A, at A P, at B P", "+asked",
            "\"What is wrong with {V}?\" asked {A}.",
            "{A} held up {V}, who was crying into a sock.",
        ),
        act(
            "homesick", "cries V, asked, at A P, at B P, nest Q", "-asked, +hint",
            "\"It wants its mother,\" said {B}, \"so go back to {Q}.\"",
            "\"Did you look for the mother {at Q}?\" asked {B}.",
        ),
        act(
            "carry", "hint, cries V, nest P, lead A", "-hint, -cries V, +at A P, +back V",
            "{A} carried {V} back to {P}.",
            "Back {at P} {A} put {V} down and waited.",
            "So {A} ran back to {P} with {V} in {his A} arms.",
        ),
        act(
            "mother", "back V, called N V, lead A", "-back V, +safe V",
            "There sat a big {N}, waiting, and {V} stopped crying at once.",
            "A big {N} was waiting, and washed {V} from head to toe.",
        ),
        act(
            "farewell", "safe V, lead A", "-safe V, +done",
            "Since then there is a fresh fish at {A}'s door every morning.",
            "{V} looked back once and sneezed, and {A} sneezed too.",
        ),
        act(
            "eat", "guest V, called N V, lead A", "-guest V, +eats V, +errand",
            "In one day {V} ate nine herrings, two candles and a sock.",
            "{V} ate for three, and slept in {A}'s best boots.",
            "{V} ate the breakfast, then the lunch, and then the tablecloth.",
        ),
        act(
            "beg", "eats V, called N V, lead A, at A P, at B P", "+asked",
            "\"Can you help me with {V}?\" asked {A}.",
            "{A} was thin and tired, and {V} was round.",
        ),
        act(
            "keep", "eats V, called N V, asked, at A P, at B P, lead A", "-asked, -eats V, +has B V",
            "\"I have always wanted {a N},\" said {B}, and {V} was already in {his B} lap.",
            "But {V} looked at {B}, and {B} looked at {V}, and that was that.",
        ),
        act(
            "settle", "has B V, home B P, lead A", "+done",
            "Now {V} lives {at P}, and {A} comes to tea every Sunday.",
            "Now {V} is helping {B} {at P}, and nobody has said that it helps.",
            "Now {V} sleeps {at P}, and {B} is never lonely.",
        ),
    ),
)  # fmt: skip

PLOTS = (REPAIR, FOUNDLING)
