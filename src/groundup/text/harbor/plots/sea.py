"""Plots at sea: a storm and the lighthouse, a race, the very big fish.

In: nothing. Out: `PLOTS`.
"""

from groundup.text.harbor.plots.plot import Plot
from groundup.text.harbor.sentences import act

STORM = Plot(
    "storm",
    roles="A:sailor B:friend.A P:home.B",
    script="""title meet / sail turn wait / run (sleep wake | oil fetch | nest carry) light / home knees? coda""",
    acts=(
        act(
            "title", "start", "+plot storm, +lead A, +known A",
            "{A} in the storm",
            "The {boat A} and the dark lighthouse",
        ),
        act(
            "sail", "plot storm, lead A, calm, at A _", "-calm, -at A _, +out A",
            "Today {he A} sailed out in the {boat A} to catch herring.",
            "Before breakfast {he A} took the {boat A} far out to sea.",
            "Today the herring were calling, so {he A} sailed out in the {boat A}.",
        ),
        act(
            "turn", "out A, not storm", "+storm",
            "By noon the sky was as black as a boot.",
            "Then the wind woke up, and the waves were as big as the inn.",
            "Then a storm came, and the {boat A} jumped up and down like a goat.",
            "Then the sky turned black, and the sea began to shout.",
        ),
        act(
            "wait", "storm, out A, not at B _", "+known B, +at B pier, +waits B",
            "On the pier {B} the {job B} looked for the {boat A}.",
            "{B} the {job B} waited on the pier, but the {boat A} did not come.",
            "{B} the {job B} stood on the pier and counted the boats, all but the {boat A}.",
        ),
        act(
            "run", "waits B, at B pier, out A, storm", "-waits B, +at B lighthouse, +gloom",
            "The lighthouse was dark, so {B} ran up all ninety steps.",
            "There was no light, so {B} ran to the lighthouse.",
            "\"Why is there no light?\" said {B}, and ran to the lighthouse.",
        ),
        act(
            "sleep", "gloom, at B lighthouse, not at Odo _", "+known Odo, +at Odo lighthouse, +asleep",
            "There was Odo the lamp keeper, fast asleep with his nose in a book.",
            "There was Odo the lamp keeper, asleep in the bathtub.",
            "There sat Odo the lamp keeper, asleep, with the cat on his head.",
        ),
        act(
            "wake", "asleep, at B lighthouse", "-asleep, +ready",
            "{B} shouted so loudly that Odo woke up, and so did the next town.",
            "{B} put a cold fish on Odo's neck, and he woke up.",
            "{B} pulled him by the nose until he woke up.",
        ),
        act(
            "oil", "gloom, at B lighthouse, not at Odo _", "+known Odo, +at Odo lighthouse, +dry",
            "\"There is no more oil,\" cried Odo the lamp keeper.",
            "There was Odo the lamp keeper with an empty can. \"No oil,\" he said.",
        ),
        act(
            "fetch", "dry, at B lighthouse, home B P", "-dry, +ready",
            "So {B} ran to {P} and came back with the oil from every lamp.",
            "There was some oil {at P}, so {B} ran again.",
        ),
        act(
            "nest", "gloom, at B lighthouse, not at Odo _", "+known Odo, +at Odo lighthouse, +nest",
            "There was a nest on the lamp, and Odo the lamp keeper did not want to wake the gull.",
            "\"There is a nest in the lamp,\" whispered Odo the lamp keeper.",
        ),
        act(
            "carry", "nest, at B lighthouse", "-nest, +ready",
            "So {B} and Odo moved the nest to his bed, one egg at a time.",
            "{B} held the nest in both arms, and the gull bit only a little.",
        ),
        act(
            "light", "ready, gloom, out A, storm, lead A", "-ready, -gloom, -storm, -out A, +at A pier, +saved A",
            "Odo lit the lamp, and far out {A} saw it and turned the {boat A} round.",
            "Then there was light, and {A} shouted with joy and turned the {boat A} round.",
            "The great light went round, and the {boat A} came home like a horse that smells hay.",
        ),
        act(
            "home", "saved A, at A pier, at B lighthouse", "+at B pier, +done",
            "When {A} stepped on the pier, {B} was laughing and crying at the same time.",
            "On the pier {B} gave {A} {gift B}, and then a very long hug.",
            "{B} was on the pier before the rope was, and would not let {A} go.",
        ),
        act(
            "knees", "done, saved A, at A P, at B P", "-saved A",
            "\"I was never afraid,\" said {A}, but {his A} knees were still shaking.",
            "{A} gave {gift A} to {B}, and another one to Odo.",
        ),
    ),
)  # fmt: skip

RACE = Plot(
    "race",
    roles="A:sailor B:neighbour.A",
    script="""title (dawn | | ) meet / boast plates / off front (gull | | | ) (
        stuck rope tie / both | stop passed win[A=B B=A] / pay | win / pay[A=B B=A]) coda""",
    acts=(
        act(
            "title", "start", "+plot race, +lead A, +known A, +rival B, +known B",
            "{A} races {B}",
            "The {boat A} against the {boat B}",
        ),
        act(
            "boast", "plot race, rival B, lead A, calm, at A _", "-calm, +at A pier, +at B pier, +bet",
            "{B} the {job B} said that the {boat B} was faster than the {boat A}.",
            "\"My {boat A} is the fastest boat in the bay,\" {A} told {B} the {job B}.",
        ),
        act(
            "plates", "bet, not terms _", "-bet, +terms plates",
            "So there was a race, and the loser had to wash all the plates.",
            "They made a bet: the loser would wash all the plates in town.",
        ),
        act(
            "off", "terms _, lead A, rival B, at A pier, at B pier", "-at A _, -at B _, +racing",
            "The bell rang, and off they went.",
            "The bell rang, and the gulls held on to their hats.",
            "Everybody shouted \"Go\", and the {boat A} and the {boat B} flew over the water.",
        ),
        act(
            "front", "racing, lead A, rival B", "-racing, +first A, +second B",
            "As far as the lighthouse {A} was first.",
            "Soon the {boat A} was in front, by the length of a whale.",
        ),
        act(
            "stuck", "second B, first A", "-second B, +stuck B",
            "Then the {boat B} ran onto a rock with a sad little bump.",
            "Then there was a crack, and {B} sat in the water, holding half a mast.",
        ),
        act(
            "rope", "stuck B, first A", "-stuck B, -first A, +tied A B",
            "{A} could have won, but {he A} went back and threw {B} a rope.",
            "\"A race is only a race,\" said {A}, and went back to pull {B} out.",
        ),
        act(
            "tie", "tied A B", "-tied A B, +owes A, +owes B, +both",
            "So they came home side by side, and nobody was first.",
            "They came in so close together that even the gulls could not say who was first.",
            "The {boat A} and the {boat B} came in together, tied like two goats.",
        ),
        act(
            "stop", "first A, second B", "-first A, +stopped A",
            "Then {A} stopped to say good morning to a seal.",
            "But then {A} took off {his A} hat to wave, and the wind took the hat.",
        ),
        act(
            "passed", "stopped A, second B", "-stopped A, -second B, +first B, +second A",
            "Past went the {boat B}, and {B} was singing.",
            "So {B} sailed past without a word.",
        ),
        act(
            "win", "first A, second B", "-first A, -second B, +owes B",
            "{A} won by the length of a herring.",
            "{A} was home first, and had time for a cup of tea.",
            "{A} came in first, and a very old man fell into the harbour with joy.",
        ),
        act(
            "pay", "terms plates, owes A, not both", "-terms plates, -owes A, +done",
            "So {A} washed all the plates, and broke only two.",
            "{A} washed plates until it was morning.",
        ),
        act(
            "both", "terms plates, both, owes A, owes B", "-terms plates, -owes A, -owes B, +done",
            "That night both of them washed the plates, {A} the big ones and {B} the small ones.",
        ),
    ),
)  # fmt: skip

FISH = Plot(
    "fish",
    roles="A:sailor B:friend.A O:owns.B",
    script="""title (dawn | | ) meet / vow drowned quirk? / bite (pull | | ) catch / hand tease coda""",
    acts=(
        act(
            "title", "start", "+plot fish, +lead A, +known A",
            "{A} and the very big fish",
            "{A} wants the biggest fish",
        ),
        act(
            "vow", "plot fish, lead A, calm, at A _, not at B _", "-calm, +vow, +known B, +at A pier, +at B pier",
            "\"Today I will catch the biggest fish,\" {he A} told {B} the {job B} on the pier.",
            "On the pier {he A} told {B} the {job B}: \"Today I will catch a fish like a house.\"",
        ),
        act(
            "drowned", "vow, lead A, at A pier, at B pier, owns B O", "-vow, +sunk O, +owner B O, +new O, +wish B",
            "\"Then bring back my {O},\" said {B}. \"It fell off the pier ten years ago.\"",
            "\"If you see my {O} down there, say hello,\" said {B}, who had lost it at sea.",
        ),
        act(
            "bite", "wish B, lead A, at A pier, sunk O", "-wish B, -new _, -at A _, +out A, +hooked",
            "Far behind the lighthouse something pulled so hard that the {boat A} went backwards.",
            "{A} took the {boat A} far out, and after nine hours there was something on the hook.",
            "Out at sea something took the hook, and the {boat A} turned round three times like a dog.",
        ),
        act(
            "pull", "hooked, out A, not pulled", "+pulled",
            "{A} pulled, and it pulled, and for an hour nobody won.",
            "\"Come up and say hello,\" shouted {A}.",
            "{A} pulled until {his A} arms were as long as oars.",
        ),
        act(
            "catch", "hooked, out A, sunk O", "-hooked, -sunk O, +has A O",
            "Up came an old boot, half a chair and {a O}.",
            "Up came no fish at all, but {a O}, as wet as a seal.",
            "It was not a fish. It was {a O}, and a crab was living in it.",
        ),
        act(
            "hand", "out A, has A O, owner B O, at B pier", "-out A, +at A pier, +has B O, +glad B",
            "{A} sailed home, said nothing and gave {B} the {O}.",
            "Back on the pier {A} put the {O} into {B}'s arms.",
        ),
        act(
            "tease", "glad B, has B O, owner B O", "-glad B, +done",
            "\"That is a thin fish,\" said {B}, and hugged the {O}.",
            "{B} hugged the {O} first, and then {A}, who smelled of fish.",
            "\"It is the best fish I ever saw,\" said {B}, and kissed the {O}.",
        ),
    ),
)  # fmt: skip

PLOTS = (STORM, RACE, FISH)
