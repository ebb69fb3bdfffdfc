"""What users ask, by category: templates with places for words. Our own material.

{passage} is a document, {other} a second one, {sentence} sentences in {source}; the rest come from `words`.
"""

from __future__ import annotations

QUESTION = (
    "What is {topic}?", "What are the main facts about {topic}?", "Explain {topic} to {audience}.", "How does {topic} work?",
    "Why is {topic} important?", "Tell me about {topic}.", "What is the history of {topic}?", "Who first wrote about {topic}?",
    "What is the difference between {topic} and {topic2}?", "Give three reasons why {topic} matters.",
    "When did people begin to study {topic}?", "Where can I learn more about {topic}?", "Is {topic} good or bad? Why?",
    "What are common mistakes when learning about {topic}?", "Describe {topic} in {format}.", "How is {topic} connected with {topic2}?",
    "What would happen without {topic}?", "List the advantages and disadvantages of {topic}.", "Which country is famous for {topic}?",
    "What does a {job} need to know about {topic}?", "How many kinds of {topic} are there?", "Can you define {topic} in one sentence?",
    "who invented {topic}", "what is the meaning of {topic}", "when was {topic} discovered", "where is {place} located",
    "what is {place} known for", "how long does it take to learn about {topic}", "why do people like {topic}",
    "what is the best time to visit {place}", "who is the most famous {job} in {place}", "what year did {topic} begin",
    "Answer this question: what is the role of {topic} in {place}?", "True or false: {topic} has nothing to do with {topic2}. Explain.",
)  # fmt: skip
TRANSLATION = (
    "Translate {source} to {target}: {sentence}", "Translate the following text from {source} to {target}.\n\n{sentence}",
    "Translate to {target}: {sentence}", "How do you say this in {target}? \"{sentence}\"", "{sentence}\n\nTranslate this into {target}.",
    "Please translate this {source} text into {target}:\n{sentence}", "{source}: {sentence}\n{target}:",
    "I got a message in {source}: {sentence} What does it mean in {target}?",
)  # fmt: skip
SUMMARY = (
    "Summarize: {passage}", "Summarize the following article.\n\n{passage}", "{passage}\n\nSummarize the text above in one sentence.",
    "Write a summary of this text in {number} sentences:\n\n{passage}", "{passage}\n\nTL;DR:", "What is the main idea of this text?\n{passage}",
    "Give me the key points of the following text as a list.\n\n{passage}", "Write a headline for this article: {passage}",
    "Summarize this for {audience}:\n\n{passage}", "Shorten this text to half its length.\n\n{passage}",
)  # fmt: skip
RAG = (
    "Answer the question from the documents.\n\nDocument 1: {passage}\n\nDocument 2: {other}\n\nQuestion: what is {topic}?",
    "Context:\n{passage}\n\nQuestion: who is mentioned in the context?\nAnswer:",
    "Use the following passages to answer the question.\n\n[1] {passage}\n\n[2] {other}\n\nQuestion: {question}",
    "{passage}\n\nBased on the text above: {question}", "Question: {question}\n\nSearch results:\n- {passage}\n- {other}\n\nAnswer:",
    "I read this:\n\"{passage}\"\n\n{question}", "Given the context below, answer as exactly as you can.\n\n{other}\n\n{passage}\n\n{question}",
    "Title: {topic}\nText: {passage}\n\nWhen does this take place, and where? Quote the text.",
)  # fmt: skip
PASSAGE_QUESTIONS = (
    "What is the text about?", "Which names does it mention?", "What happened first?", "Why is this important?", "What is the result?",
    "Which numbers are given?", "What does the author think about it?", "what is the most important fact", "who is responsible for this",
    "when did this happen", "where does this take place", "how does it end", "What can we learn from this?", "Which problem is described?",
)  # fmt: skip
EXTRACT = (
    "Extract all names, places and dates from the text as JSON.\n\n{passage}", "List the nouns in this text: {sentence}",
    "Make a table with the columns Topic, Fact and Source from this text:\n{passage}", "Is the mood of this text positive, negative or neutral? {passage}",
    "Give five keywords for the following text.\n\n{passage}", "Make a CSV table of five facts about {topic}: name, year, place.",
    "Return a JSON object with the keys title, author, year and summary for a book about {topic}.", "Classify this text as news, science, sports or culture:\n{passage}",
    "Write the names {name}, {name2} and {name3} as a JSON list of people with made-up ages and jobs.", "Make a table comparing {topic} and {topic2}.",
)  # fmt: skip
REWRITE = (
    "Rewrite this text more formally:\n{passage}", "Rewrite in the past tense: {sentence}", "Correct the mistakes: {sentence}",
    "Make this text easier to read for {audience}.\n\n{passage}", "Rewrite the following text as {format}:\n\n{passage}",
    "Paraphrase: {sentence}", "Continue this text:\n\n{passage}", "Turn this into a polite email to {name}: {sentence}",
    "Expand this into a paragraph: {sentence}", "Rewrite this from the point of view of a {job}:\n{passage}",
)  # fmt: skip
WRITING = (
    "Write {format} about {topic}.", "Write {format} about a {job} from {place}.", "Compose {format} that mentions {topic} and {topic2}.",
    "Write a story that begins with: \"{sentence}\"", "Draft an email to {name} about {topic}.", "Describe a day in {place} for {audience}.",
    "Give me ten ideas for {format} about {topic}.", "Write an outline for a book on {topic}.", "Plan a three-day trip to {place}.",
    "Write a persuasive speech for {topic}.", "Invent a product for people who like {topic} and describe it.", "Write a dialogue between {name} and {name2} about {topic}.",
    "Compare {topic} with {topic2} in {format}.", "Write a short biography of {name}, a {job} from {place}.", "Write a poem about {place}.",
)  # fmt: skip
ROLEPLAY = (
    "You are a {job}. Explain {topic} in your own words.", "Pretend to be a {job} from {place} and introduce yourself.",
    "Act as a {job} who is asked about {topic}.", "Imagine you are {name}, a {job}. How do you feel about {topic}?",
    "As a {job}, what advice would you give {name}?", "Speak like a {job} and tell me a joke about {topic}.",
    "You are a {job} and {name} has a problem with {topic}. What do you say?",
)  # fmt: skip
CODE = (
    "Write a {code} function that {task}.", "Write a {code} program that {task}.", "How do I write code in {code} that {task}?",
    "Write a {code} function that {task}, with comments and an example.", "Implement in {code}: a function that {task}. Explain its complexity.",
    "Give me a short {code} script that {task}.", "Write a class in {code} that {task}.", "Write unit tests for a {code} function that {task}.",
    "What is {topic}? Show an example in {code}.", "Complete this function.\n\n```python\ndef solve(values):\n    \"\"\"A function that {task}.\"\"\"\n```",
    "from typing import List\n\n\ndef solve(values: List[int]) -> int:\n    \"\"\" Write a function that {task}.\n    >>> solve([{a}, {b}])\n    \"\"\"\n",
)  # fmt: skip
PASSAGE = (
    "Write {kind} about {topic}.", "Write {kind} about {topic} in {place}.", "Write {kind} about {name}, a {job} from {place}.",
    "Write {kind} on how {topic} changed {place}.", "Write {kind} about {topic} and {topic2} with names, dates and numbers.",
    "Write {kind} titled \"{topic}: what {name} found in {place}\".",
)  # fmt: skip
FOLLOW_UPS = (
    "Can you explain that in more detail?", "Give me an example.", "Summarize your answer in one sentence.", "Why?", "Now make it shorter.",
    "Rewrite it as {format}.", "Translate your answer into {target}.", "What about {topic}?", "Explain it to {audience}.", "Are you sure? Check again.",
    "List the key points.", "What would a {job} say about this?", "Now write it in a more formal style.", "How does this relate to {topic}?",
    "Write your answer as a table.", "Give me three more.", "What are the counterarguments?", "Thanks! What should I read next?", "Now do the same in {code}.",
)  # fmt: skip
