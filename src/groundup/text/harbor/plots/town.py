"""What any story may use: mornings, weather, gulls, the neighbours and their habits, visits, last lines.

In: nothing. Out: `ACTS`, shared by all plots. Each needs the facts that make it fit where it stands.
"""

from groundup.text.harbor.sentences import act

MORNINGS = (
    act(
        "dawn", "start, lead _, not weather _", "+weather fog",
        "It was a foggy morning in the harbour.",
        "One morning the fog was so thick that the gulls had to walk.",
        "Fog lay on the harbour like cold soup.",
    ),
    act(
        "dawn", "start, lead _, not weather _", "+weather rain",
        "It had rained in the harbour since Tuesday.",
        "It was a rainy morning, and only the ducks were pleased.",
        "One morning it rained so hard that the fish came up to look.",
    ),
    act(
        "dawn", "start, lead _, not weather _", "+weather wind",
        "It was a windy morning, and all the hats were in a hurry.",
        "One morning the wind was so strong that the washing flew out to sea.",
        "A big wind was blowing through the harbour, looking for hats.",
    ),
    act(
        "dawn", "start, lead _, not weather _", "+weather sun",
        "It was a sunny morning, and the boats were bobbing like ducks.",
        "One morning the sun came up so early that the gulls were still asleep.",
        "The sun shone on the harbour as if somebody had polished it.",
    ),
    act(
        "dawn", "start, lead _, not weather _", "+weather snow",
        "It was a snowy morning, and every boat wore a white hat.",
        "It was so cold that the gulls stood on one leg, then on the other.",
        "Snow had come in the night, as quiet as a sock.",
    ),
)  # fmt: skip

AIR = (
    act(
        "air", "weather fog, not air", "+air",
        "Somewhere in the fog a ship said good morning to a rock.",
        "The fog was so thick that the cat walked into the sea and said sorry.",
    ),
    act(
        "air", "weather rain, not air", "+air",
        "The rain ran down every neck in town.",
        "It was still raining, and the ducks were singing.",
    ),
    act(
        "air", "weather wind, not air", "+air",
        "A hat flew by, and nobody knew whose hat it was.",
        "The wind took three hats and gave back two.",
    ),
    act(
        "air", "weather sun, not air", "+air",
        "The sun was so warm that the gulls took a nap.",
        "Even the crabs were lying in the sun.",
    ),
    act(
        "air", "weather snow, not air", "+air",
        "Somebody had built a snow herring in front of the inn.",
        "The snow made every step go crunch.",
    ),
    act(
        "gull", "known _, not gull", "+gull",
        "A gull laughed, but gulls laugh at everything.",
        "Two gulls were watching, and they did not help at all.",
        "Somewhere a gull told a joke, and all the other gulls laughed.",
        "A gull flew by with somebody's breakfast.",
    ),
)  # fmt: skip

PEOPLE = (
    act(
        "meet", "start, lead A, home A P", "-start, +calm, +at A P",
        "{A=Mira} the baker gave every loaf a name before she sold it.",
        "{A=Mira} was the baker, and she sang to her dough.",
        "{A=Odo} the lamp keeper was a little afraid of the dark.",
        "{A=Odo} was the lamp keeper, and he wished every ship good night by name.",
        "{A=Bruno} the fisherman had never been in a hurry in his life.",
        "{A=Bruno} was a fisherman, so patient that crabs took naps on him.",
        "{A=Nell} the crab catcher had ten fingers, and the crabs knew all of them.",
        "{A=Nell} was a crab catcher, and she said sorry to every crab.",
        "{A=Rosa} the captain had sailed round the world twice, once by mistake.",
        "{A=Rosa} was a captain, and she shouted even when she whispered.",
        "{A=Ada} the clock maker had forty clocks, and no two of them agreed.",
        "{A=Ada} was the clock maker, and she was always late.",
        "{A=Lars} the boat builder measured everything twice, even his soup.",
        "{A=Lars} the boat builder had built nine boats, and eight of them could float.",
        "{A=Wilma} the innkeeper made a soup so thick that a fork could stand in it.",
        "{A=Wilma} the innkeeper knew every secret in town and kept almost all of them.",
        "{A=Hugo} the mayor was a small man with a tall hat.",
        "{A=Hugo} was the mayor, and every morning he made a speech to the gulls.",
        "{A=Pim} the postman read every postcard, and answered some of them.",
        "{A=Pim} was the postman, so fast that he was often early by a day.",
    ),
    act(
        "react", "worried A", "-worried A",
        "{A=Mira} told the dough about it, and the dough sighed.",
        "{A=Odo} lit a match, just to be safe.",
        "{A=Bruno} thought about it for a long, long time.",
        "{A=Nell} told a crab about it, and the crab held her hand.",
        "{A=Rosa} said a word that only captains know.",
        "{A=Ada} looked at six clocks, and none of them could help.",
        "{A=Lars} measured the trouble twice, and it was big both times.",
        "{A=Wilma} said that everything looks better after soup.",
        "{A=Hugo} held on to his tall hat and began a short speech.",
        "{A=Pim} ran round in three circles, for that was how he thought.",
    ),
    act(
        "visit", "lead A, errand, home B P, not at B _", "-errand, +known B, +at B P, +at A P",
        "{He A} went to {P}, where {B} the {job B} was {busy B}.",
        "{He A} ran to {P}, and there was {B} the {job B}, {busy B}.",
        "{At P} {he A} found {B} the {job B}, {busy B}.",
        "Soon {he A} came to {P} and met {B} the {job B}, {busy B}.",
    ),
    act(
        "return", "lead A, at B P, not at A P, heading back", "-heading back, +at A P",
        "{He A} ran back to {P} as fast as {he A} could.",
        "Then {he A} hurried back to {B} {at P}.",
    ),
)  # fmt: skip

QUIRKS = (
    act(
        "quirk", "new O", "-new O, +odd O",
        "It was no common {O=kettle}: it whistled two notes at once.",
        "It was no common {O=lantern}: it had once been to Africa.",
        "It was no common {O=umbrella}: it had the head of a duck.",
        "It was no common {O=spoon}: it had stirred a thousand soups.",
        "It was no common {O=spyglass}: it made everybody look kind.",
        "It was no common {O=key}: nobody knew which door it opened.",
        "It was no common {O=map}: it showed an island that was not there.",
        "It was no common {O=bucket}: it had a hole, but only a small one.",
        "It was no common {O=basket}: Admiral the cat had been born in it.",
        "It was no common {O=rope}: it had a knot that nobody could undo.",
    ),
    act(
        "coda", "done, odd O", "-done, +end",
        "And the {O=kettle}? It still whistles two notes at once.",
        "And the {O=lantern}? It dreams of Africa.",
        "And the {O=umbrella}? Its duck is still smiling.",
        "And the {O=spoon}? It has stirred a thousand and one soups now.",
        "And the {O=spyglass}? Everybody still looks kind in it.",
        "And the {O=key}? Nobody has found the door yet.",
        "And the {O=map}? Somebody should go and look for that island.",
        "And the {O=bucket}? The hole is still there, and so are the friends.",
        "And the {O=basket}? Admiral the cat says that it is his.",
        "And the {O=rope}? The knot is still there, and so are the friends.",
    ),
)  # fmt: skip

CODAS = (
    act(
        "coda", "done, lead A", "-done, +end",
        "In the evening {A=Mira} gave a new loaf a very good name.",
        "That night {A=Odo} was not afraid of the dark at all.",
        "{A=Bruno} was so happy that he nearly hurried home.",
        "And {A=Nell} told the whole story to the crabs, who clapped.",
        "{A=Rosa} was so happy that she really whispered.",
        "And for once all of {A=Ada}'s clocks agreed: it was time for bed.",
        "That evening {A=Lars} measured his smile, and it was big both times.",
        "And {A=Wilma} put one more potato into the soup.",
        "{A=Hugo} made a speech about it, and for once nobody fell asleep.",
        "And {A=Pim} wrote it all on a postcard and sent it to himself.",
    ),
    act(
        "coda", "done", "-done, +end",
        "In the harbour they still tell this story, and it grows longer every year.",
        "The gulls had seen it all, and by evening everybody knew.",
        "That night the whole harbour slept well, even the gulls.",
        "The lighthouse winked, as if it had known all along.",
        "Then everybody went to the inn, because that is where stories end.",
        "The sea said nothing, but it sounded pleased.",
    ),
)  # fmt: skip

ACTS = MORNINGS + AIR + PEOPLE + QUIRKS + CODAS
