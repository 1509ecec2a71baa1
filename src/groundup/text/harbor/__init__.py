"""The built-in small world: short stories of a harbour town, written from a seed, and a checker that reads them back.

In: a seed. Out: `stories` (texts without end), `story` (one by number), `tell` (one with the facts behind it) and
`check` (any text -> is it a grammatical, consistent harbour story, and if not, why). For tuning: `questions` (about a
scene in the prompt, with exact answers) and `messages` (notes for one of five desks), two files with functions of their
own.

>>> from groundup.text import harbor
>>> harbor.check(harbor.story(seed=1, index=0)).ok
True
>>> question = next(harbor.questions.questions(seed=1))
>>> question.right(question.answer)
True
"""

from groundup.text.harbor import messages, questions
from groundup.text.harbor.reader import Verdict, check
from groundup.text.harbor.teller import Event, Story, stories, story, tell

__all__ = ["Event", "Story", "Verdict", "check", "messages", "questions", "stories", "story", "tell"]
