"""Questions about finds in words that the demo's model was never asked in, with the answers it was taught to give.

In: nothing. Out: `REWORDED`, families of questions like those of finds.py. Scene, parts and answers are the same; only
the question is new. A model tuned on finds.py therefore knows how to answer, but not always what is asked: of the
demo's model a part of the answers is right from the start, which is what learning from a reward needs: of a question
that is never answered right by chance nothing can be learnt, and nothing is left to learn of one that always is.
"""

# family -> question, answer, and the letter whose value is asked for, with the letters of finds.py. The answers are
# those of the family that asks for the same letter.
REWORDED = {
    "who has found it": ("Who has found the {O}?", "{N} found it.", "N"),
    "what had been found": ("What had {N} found?", "{N} found the {O}.", "O"),
    "where it comes from": ("Where does the {O} come from?", "It was found {at P}.", "P"),
    "to which place": ("To which place was the {O} carried?", "It was carried to {Q}.", "Q"),
    "whose it is": ("Whose is the {O} these days?", "{B} keeps it.", "B"),
    "who it was": ("Who was it that saw it all?", "{C} saw it all.", "C"),
    "the price": ("What was the price of the {O}?", "It was paid for with {a X}.", "X"),
}
