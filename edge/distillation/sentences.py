"""Sentences in five languages, put together from parts; they give translation prompts their text.

A sentence is subject, predicate, addition. Each language has the same parts in the same order, so that a sentence and
its counterpart can be had together. Our own material.
"""

from __future__ import annotations

from numpy.random import Generator

LANGUAGES = ("English", "German", "French", "Spanish", "Italian")
_E, _G, _F, _S, _I = range(5)

_SUBJECTS = (
    ("The mayor", "Der Bürgermeister", "Le maire", "El alcalde", "Il sindaco"),
    ("The government", "Die Regierung", "Le gouvernement", "El gobierno", "Il governo"),
    ("The company", "Das Unternehmen", "L'entreprise", "La empresa", "L'azienda"),
    ("My sister", "Meine Schwester", "Ma sœur", "Mi hermana", "Mia sorella"),
    ("The old man", "Der alte Mann", "Le vieil homme", "El anciano", "Il vecchio"),
    ("The teacher", "Die Lehrerin", "La professeure", "La profesora", "L'insegnante"),
    ("A spokesman", "Ein Sprecher", "Un porte-parole", "Un portavoz", "Un portavoce"),
    ("The police", "Die Polizei", "La police", "La policía", "La polizia"),
    ("The team", "Die Mannschaft", "L'équipe", "El equipo", "La squadra"),
    ("The scientist", "Der Wissenschaftler", "Le scientifique", "El científico", "Lo scienziato"),
    ("The hospital", "Das Krankenhaus", "L'hôpital", "El hospital", "L'ospedale"),
    ("The minister", "Die Ministerin", "La ministre", "La ministra", "La ministra"),
    ("The new director", "Der neue Direktor", "Le nouveau directeur", "El nuevo director", "Il nuovo direttore"),
    ("The court", "Das Gericht", "Le tribunal", "El tribunal", "Il tribunale"),
    ("My neighbour", "Mein Nachbar", "Mon voisin", "Mi vecino", "Il mio vicino"),
    ("The young woman", "Die junge Frau", "La jeune femme", "La joven", "La giovane donna"),
    ("The bank", "Die Bank", "La banque", "El banco", "La banca"),
    ("The farmer", "Der Bauer", "L'agriculteur", "El agricultor", "L'agricoltore"),
    ("The president", "Der Präsident", "Le président", "El presidente", "Il presidente"),
    ("The school", "Die Schule", "L'école", "La escuela", "La scuola"),
)  # fmt: skip
_PREDICATES = (
    ("wants to build a new bridge", "will eine neue Brücke bauen", "veut construire un nouveau pont", "quiere construir un puente nuevo", "vuole costruire un nuovo ponte"),
    ("has announced the results", "hat die Ergebnisse bekannt gegeben", "a annoncé les résultats", "ha anunciado los resultados", "ha annunciato i risultati"),
    ("is looking for a solution", "sucht nach einer Lösung", "cherche une solution", "busca una solución", "cerca una soluzione"),
    ("did not want to answer the question", "wollte die Frage nicht beantworten", "n'a pas voulu répondre à la question", "no quiso responder a la pregunta", "non ha voluto rispondere alla domanda"),
    ("bought bread and cheese", "kaufte Brot und Käse", "a acheté du pain et du fromage", "compró pan y queso", "ha comprato pane e formaggio"),
    ("is planning to reduce costs", "plant, die Kosten zu senken", "prévoit de réduire les coûts", "planea reducir los costos", "prevede di ridurre i costi"),
    ("is worried about the weather", "macht sich Sorgen um das Wetter", "s'inquiète du temps qu'il fait", "está preocupado por el tiempo", "è preoccupato per il tempo"),
    ("has rejected the proposal", "hat den Vorschlag abgelehnt", "a rejeté la proposition", "ha rechazado la propuesta", "ha respinto la proposta"),
    ("reads a book", "liest ein Buch", "lit un livre", "lee un libro", "legge un libro"),
    ("needs more time and money", "braucht mehr Zeit und Geld", "a besoin de plus de temps et d'argent", "necesita más tiempo y dinero", "ha bisogno di più tempo e denaro"),
    ("has won the first prize", "hat den ersten Preis gewonnen", "a gagné le premier prix", "ha ganado el primer premio", "ha vinto il primo premio"),
    ("explains the new rules", "erklärt die neuen Regeln", "explique les nouvelles règles", "explica las nuevas reglas", "spiega le nuove regole"),
    ("lost the keys", "hat die Schlüssel verloren", "a perdu les clés", "perdió las llaves", "ha perso le chiavi"),
    ("is investigating the accident", "untersucht den Unfall", "enquête sur l'accident", "investiga el accidente", "indaga sull'incidente"),
    ("expects a good harvest", "erwartet eine gute Ernte", "attend une bonne récolte", "espera una buena cosecha", "si aspetta un buon raccolto"),
    ("has supported the project from the beginning", "hat das Projekt von Anfang an unterstützt", "a soutenu le projet depuis le début", "ha apoyado el proyecto desde el principio", "ha sostenuto il progetto fin dall'inizio"),
    ("speaks about the future of Europe", "spricht über die Zukunft Europas", "parle de l'avenir de l'Europe", "habla del futuro de Europa", "parla del futuro dell'Europa"),
    ("must pay a fine", "muss eine Geldstrafe zahlen", "doit payer une amende", "debe pagar una multa", "deve pagare una multa"),
    ("would like to travel by train", "möchte mit dem Zug reisen", "aimerait voyager en train", "quisiera viajar en tren", "vorrebbe viaggiare in treno"),
    ("has published a report", "hat einen Bericht veröffentlicht", "a publié un rapport", "ha publicado un informe", "ha pubblicato un rapporto"),
)  # fmt: skip
_ADDITIONS = (
    ("this week", "diese Woche", "cette semaine", "esta semana", "questa settimana"),
    ("because the prices are rising", "weil die Preise steigen", "parce que les prix augmentent", "porque los precios suben", "perché i prezzi aumentano"),
    ("in the city centre", "in der Innenstadt", "au centre-ville", "en el centro de la ciudad", "nel centro della città"),
    ("although nobody expected it", "obwohl es niemand erwartet hatte", "bien que personne ne s'y attende", "aunque nadie lo esperaba", "anche se nessuno se lo aspettava"),
    ("before the end of the year", "vor Ende des Jahres", "avant la fin de l'année", "antes de fin de año", "prima della fine dell'anno"),
    ("according to the newspaper", "laut der Zeitung", "selon le journal", "según el periódico", "secondo il giornale"),
    ("on Monday morning", "am Montagmorgen", "lundi matin", "el lunes por la mañana", "lunedì mattina"),
    ("without any help", "ohne jede Hilfe", "sans aucune aide", "sin ninguna ayuda", "senza alcun aiuto"),
    ("after a long discussion", "nach einer langen Diskussion", "après une longue discussion", "tras una larga discusión", "dopo una lunga discussione"),
    ("for the second time", "zum zweiten Mal", "pour la deuxième fois", "por segunda vez", "per la seconda volta"),
    ("together with friends", "zusammen mit Freunden", "avec des amis", "con unos amigos", "insieme ad amici"),
    ("when the rain stopped", "als der Regen aufhörte", "quand la pluie s'est arrêtée", "cuando dejó de llover", "quando ha smesso di piovere"),
)  # fmt: skip


def sentences(rng: Generator, *, count: int) -> tuple[str, ...]:
    """Return a text of `count` sentences once in each of LANGUAGES; the five mean the same."""
    texts: tuple[list[str], ...] = tuple([] for _ in LANGUAGES)
    for _ in range(count):
        subject = _SUBJECTS[rng.integers(len(_SUBJECTS))]
        predicate = _PREDICATES[rng.integers(len(_PREDICATES))]
        addition = _ADDITIONS[rng.integers(len(_ADDITIONS))]
        for language, text in enumerate(texts):
            text.append(_sentence(subject, predicate, addition, language=language))
    return tuple(" ".join(text) for text in texts)


def _sentence(
    subject: tuple[str, ...],
    predicate: tuple[str, ...],
    addition: tuple[str, ...],
    *,
    language: int,
) -> str:
    tail = addition[language]
    if language == _G and tail.startswith(("weil", "obwohl", "als")):
        return f"{subject[language]} {predicate[language]}, {tail}."
    if language == _G and tail.startswith("laut"):
        return f"{subject[language]} {predicate[language]}, {tail}."
    return f"{subject[language]} {predicate[language]} {tail}."
