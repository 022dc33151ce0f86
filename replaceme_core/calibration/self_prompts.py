"""How a model is asked to write: questions that begin a chat and openings of prose, each about one of many everyday things.

All of it is our own. `chats` and `openings` give as many as are wanted, in an order that the seed shuffles, none twice before all were used.
"""

from collections.abc import Iterator

import torch

TOPICS = (
    "bread", "a bicycle", "the moon", "rain", "a village school", "honey bees", "an old clock", "the human heart", "salt",
    "a lighthouse", "tea", "a long train journey", "volcanoes", "a library", "iron", "a market in autumn", "the immune system",
    "sleep", "a good argument", "chess", "glass", "a broken window", "rivers", "a football match", "paper", "the invention of writing",
    "a power cut", "cats", "soil", "a first day at work", "gravity", "a choir", "maps", "the price of bread", "friendship", "a desert",
    "photosynthesis", "a bank loan", "coffee", "the electric motor", "a quarrel between neighbours", "snow", "a stone bridge",
    "vaccines", "a family recipe", "whales", "the printing press", "a hospital at night", "wind", "a kitchen garden", "copper",
    "public transport", "a letter that never arrived", "the ocean floor", "probability", "a small shop", "horses", "an eclipse",
    "wool", "the water cycle", "a court case", "music lessons", "a mountain hut", "bacteria", "a lost key", "the night sky",
    "elections", "a wooden boat", "sugar", "a museum", "earthquakes", "a birthday", "the number zero", "a computer programme that fails",
    "a forest after a fire", "recycling", "an island", "the telephone", "a painter's studio", "potatoes", "insurance", "a harbour",
    "memory", "a winter morning", "concrete", "a village fair", "antibiotics", "a dog that waits", "the stock market", "a poem",
)  # fmt: skip
QUESTIONS = (
    "What should everybody know about {}?", "Explain {} to a ten-year-old.", "Write a short story about {}.", "Give me three facts about {}.",
    "Why should people care about {}?", "Write a poem of eight lines about {}.", "What are the advantages and disadvantages of {}?",
    "I have to give a talk about {}. How should I begin?", "Describe {} for somebody who has never come across it.",
    "What is a common misunderstanding about {}?", "Write an e-mail to a friend about {}.", "What has changed about {} over the last hundred years?",
    "Make a list of ten words that go with {}.", "What questions would a scientist ask about {}?", "Summarise what is known about {} in five sentences.",
    "Write a dialogue between two people about {}.", "Which jobs have to do with {}?", "Give me a plan for a lesson about {}.",
    "What would the world be like without {}?", "Tell me something surprising about {}.", "Write a short newspaper report about {}.",
    "How would you explain {} in a single paragraph?", "What can go wrong with {}, and what can be done about it?", "Write the first page of a novel that begins with {}.",
    "Compare {} with something similar.", "Give step-by-step advice to a beginner who is interested in {}.", "Write a riddle whose answer is {}.",
    "What did people in the past believe about {}?", "Write three quiz questions about {}, with their answers.", "Help me to write a paragraph about {} for a school essay.",
)  # fmt: skip
AGAIN = (
    "Thank you. Can you say it in simpler words?", "Give me an example.", "Why is that?", "Now say the same in two sentences.", "What else is there to say about it?",
    "Are you sure? Explain your reasons.", "How would I check that for myself?", "Please turn it into a list.", "Who would disagree, and why?", "And what should I read next?",
)  # fmt: skip
OPENINGS = (
    "The history of {}", "Once upon a time there was a girl who knew everything about {}.", "In this chapter we look at {}.", "Nobody in the town had ever thought much about {}.",
    "A short guide to {}:", "When scientists first studied {},", "My grandmother used to talk about {}.", "Travellers come across {} in many parts of the world.",
    "Abstract. We investigate {}", "Last Tuesday the city council discussed {}.", "There are three things to remember about {}. First,", "Dear Anna,\n\nYesterday I thought again about {}.",
    "Question: what is known about {}?\n\nAnswer:", "It began with {}.", "The word for {} is old.", "How to begin with {}\n\n", "Most people believe that {}", "According to a report published this week, {}",
    "The old man looked out of the window and thought of {}.", "Lecture 4: {}\n\nIn the last lecture", "Review: a new book about {} tells", "Every year, thousands of visitors come because of {}.",
    "To understand {}, one has to go back", "\"I do not care about {},\" she said.", "Some notes on {}.", "In contrast to what is often said, {}", "If you want to learn more about {}, start with",
    "The economics of {}:", "For children: {} and you.", "He had written about {} all his life.",
)  # fmt: skip
_TWO_TURNS = 3
"""one chat of so many has a second question"""


def chats(seed: int) -> Iterator[list[str]]:
    """What the person says in one chat after another: one question, in a third of the chats a second one."""
    for number, (question, topic) in enumerate(_pairs(QUESTIONS, seed)):
        again = [AGAIN[number // _TWO_TURNS % len(AGAIN)]] if number % _TWO_TURNS == 0 else []
        yield [question.format(topic), *again]


def openings(seed: int) -> Iterator[str]:
    """How one text after another begins."""
    for opening, topic in _pairs(OPENINGS, seed):
        text = opening.format(topic)
        yield text[:1].upper() + text[1:]


def _pairs(frames: tuple[str, ...], seed: int) -> Iterator[tuple[str, str]]:
    """Every frame with every topic, shuffled, for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(frames) * len(TOPICS), generator=generator).tolist():
            yield frames[index % len(frames)], TOPICS[index // len(frames)]
