#!/usr/bin/env python3
"""Write the support-ticket example: train.jsonl, valid.jsonl and heldout.jsonl.

Each row is a chat: a ticket goes in, one line of JSON with four fields comes out. Everything the
answer says can be read in the ticket. The files are a function of this program alone: no clock, no
randomness from outside, and a generator of its own, so that every Python writes the same bytes.

    python3 generate.py [directory]

The held-out rows carry `metadata.phrasing`: `known` rows are new tickets in phrasings that the
training rows use too, `unseen` rows are in words that training never saw.
"""

import json
import pathlib
import sys

SEED = 20261124
N_TRAIN, N_VALID, N_KNOWN = 240, 60, 10

SYSTEM = "Turn the support ticket into JSON: category, priority, product, order_id."

PRODUCTS = [
    "Aria Kettle 200", "Borealis Lamp 45", "Cobalt Drill 500", "Dune Backpack 30",
    "Echo Speaker 110", "Fjord Heater 850", "Gale Fan 60", "Halo Webcam 720",
    "Indigo Printer 315", "Juno Blender 90", "Kite Router 640", "Lumen Monitor 270",
]

NAMES = [
    "Ana", "Ben", "Chloé", "Dmitri", "Emre", "Fatima", "Goran", "Hana", "Iván", "Jin", "Karin",
    "Luis", "Mei", "Noor", "Olga", "Priya", "Quentin", "Rosa", "Søren", "Tomás", "Uma", "Wei",
]

# The problem in one sentence.
PROBLEMS = {
    "shipping": [
        "The {product} I ordered has not been delivered yet.",
        "The parcel with my {product} has not moved since last week.",
        "The courier delivered my {product} to the wrong address.",
        "The delivery of my {product} was due on Monday and there is no sign of it.",
        "Can you tell me where the parcel with my {product} is?",
    ],
    "billing": [
        "I was charged twice for the {product}.",
        "The invoice for my {product} shows the wrong amount.",
        "My card was billed for a {product} that I never bought.",
        "The discount code was not applied to the price of the {product}.",
        "Please send me a corrected invoice for the {product}.",
    ],
    "return": [
        "I would like to send the {product} back and get a refund.",
        "How do I return the {product}? It is not what I expected.",
        "Please send me a return label for the {product}.",
        "I returned the {product} two weeks ago and the refund has not come.",
        "The {product} is the wrong colour, so I want to exchange it.",
    ],
    "login": [
        "I cannot log in to register my {product}.",
        "My account says that my {product} belongs to somebody else.",
        "The password reset mail never arrives, so I cannot set up my {product}.",
        "I am locked out of my account and cannot manage my {product}.",
        "The code to sign in to the {product} app is always rejected.",
    ],
    "defect": [
        "The {product} stopped working after two days.",
        "My {product} makes a loud noise and then switches itself off.",
        "The {product} arrived with a crack in the case.",
        "My {product} does not turn on at all.",
        "A part of the {product} broke off the first time I used it.",
    ],
    "question": [
        "Does the {product} come with a two-year warranty?",
        "Can the {product} be used outdoors?",
        "Which spare parts do you sell for the {product}?",
        "Is the {product} also available in green?",
        "What is the difference between the {product} and last year's model?",
    ],
}

ORDERS = [
    "The order number is {order}.",
    "It is order {order}.",
    "My order is {order}.",
    "This is about order {order}.",
    "You will find it under order {order}.",
    "For your records, the order is {order}.",
]

CUES = {
    "high": [
        "This is urgent.",
        "I need an answer today.",
        "Please treat this as urgent.",
        "This cannot wait, please call me at once.",
    ],
    "low": [
        "There is no hurry.",
        "This is not urgent at all.",
        "Take your time.",
        "Please answer whenever it suits you.",
    ],
    "normal": [
        "An answer this week would be fine.",
        "Please reply within a few days.",
        "Normal priority, please.",
        "The usual answering time is fine.",
    ],
}

ASIDES = [
    "I have been a customer since {year}.",
    "I looked through the help pages but did not find anything that fits.",
    "By the way, I like your new website.",
    "I bought it as a present for my sister.",
    "My neighbour recommended your shop to me.",
    "I called the hotline and waited {minutes} minutes without reaching anybody.",
    "I wrote to you through the form as well, but got only an automatic reply.",
    "Your colleague in the shop was friendly but could not help me.",
    "I have bought from you {times} times before and was always happy.",
    "I am writing from my phone, so please excuse any typing mistakes.",
    "You can reach me by mail or on the phone in the afternoon.",
    "We are a small office with {people} people.",
]

GREETINGS = ["Hi,", "Hello,", "Dear team,", "Good morning,", "Hello there,"]
CLOSINGS = ["Thanks, {name}", "Best, {name}", "Kind regards, {name}", "Regards, {name}"]

# Ten tickets in words of their own: category, priority, product, whether there is an order, text.
UNSEEN = [
    ("shipping", "high", "Kite Router 640", True,
     "Hey, ten days on and the box with the Kite Router 640 is still nowhere to be seen; our "
     "office has no network without it. We paid under {order}. Drop everything for this one, "
     "please! {name}"),
    ("shipping", "normal", "Dune Backpack 30", True,
     "Good evening. Whoever drives your van handed my Dune Backpack 30 to a stranger two "
     "streets away. See {order}. Could somebody look into that in the next days? {name}"),
    ("billing", "normal", "Lumen Monitor 270", True,
     "To whom it may concern: one Lumen Monitor 270, yet my bank shows two debits of the same "
     "sum. Reference {order}. I would like one of them cancelled by the end of the week. {name}"),
    ("billing", "low", "Aria Kettle 200", False,
     "Hiya, just noticed that our company's name on the bill for the Aria Kettle 200 is spelt "
     "wrong. It only matters for our archive, so deal with it when things are quiet. {name}"),
    ("return", "normal", "Gale Fan 60", True,
     "Greetings. The Gale Fan 60 is too big for my desk, it has to go back to you. Ordered as "
     "{order}. What are the steps? Reply in your normal time. {name}"),
    ("return", "high", "Halo Webcam 720", True,
     "Hello support, I posted the Halo Webcam 720 to your warehouse in May and have not been "
     "paid back. Purchase {order}. I expect a reply within the hour, the rent is due! {name}"),
    ("login", "high", "Echo Speaker 110", False,
     "Help! Your site says that my credentials are wrong, and I need the Echo Speaker 110 set up "
     "for a meeting that starts in thirty minutes. ASAP please. {name}"),
    ("defect", "normal", "Juno Blender 90", True,
     "Hi folks, on its third smoothie the Juno Blender 90 gave up: a bang, some smoke, then "
     "nothing. Bought as {order}. I hope you can repair or replace it; this week will do. {name}"),
    ("defect", "low", "Borealis Lamp 45", True,
     "Hello again. One of the two bulbs of the Borealis Lamp 45 flickers a little. {order} was"
     " the purchase. I can live with it for now, so put me at the end of the queue. {name}"),
    ("question", "normal", "Indigo Printer 315", False,
     "Hi! Before I decide: will an Indigo Printer 315 take recycled paper, and does it print "
     "on both sides? I hope to hear from you in a couple of days. {name}"),
]


class Random:
    """splitmix64, because Python does not promise its own sequence for ever."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % bound

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


class Tickets:
    """Tickets that differ from each other, in text and in order number."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.texts, self.orders = set(), set()
        self.problems = []

    def order(self):
        while True:
            order = f"ORD-{10000 + self.random.below(90000)}"
            if order not in self.orders:
                self.orders.add(order)
                return order

    def problem(self):
        """The phrasings in turn, so that each is used about equally often."""
        if not self.problems:
            every = [(category, text) for category, texts in PROBLEMS.items() for text in texts]
            self.problems = self.random.shuffled(every)
        return self.problems.pop()

    def asides(self):
        """One or two different sentences that have nothing to do with the answer."""
        random = self.random
        for aside in random.shuffled(ASIDES)[: 1 + random.below(2)]:
            yield aside.format(
                year=2012 + random.below(14),
                minutes=10 + random.below(50),
                times=2 + random.below(8),
                people=3 + random.below(20),
            )

    def known(self):
        random = self.random
        category, problem = self.problem()
        product = random.choice(PRODUCTS)
        # One asks before buying; most other tickets are about an order.
        has_order = category != "question" and random.below(5) > 0
        order = self.order() if has_order else None
        priority = random.choice(["high", "normal", "low"])
        before, *after = self.asides()
        sentences = [
            random.choice(GREETINGS),
            before if random.below(4) > 0 else "",
            problem.format(product=product),
            random.choice(ORDERS).format(order=order) if order else "",
            *after,
            random.choice(CUES[priority]),
            random.choice(CLOSINGS).format(name=random.choice(NAMES)),
        ]
        text = " ".join(sentence for sentence in sentences if sentence)
        return self.row(text, category, priority, product, order)

    def unseen(self, category, priority, product, has_order, text):
        order = self.order() if has_order else None
        text = text.format(order=order, name=self.random.choice(NAMES))
        return self.row(text, category, priority, product, order)

    def row(self, text, category, priority, product, order):
        assert text not in self.texts, "two tickets with the same text: change the seed"
        self.texts.add(text)
        answer = {
            "category": category, "priority": priority, "product": product, "order_id": order,
        }
        return {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": text},
                {"role": "assistant", "content": compact(answer)},
            ]
        }


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8"))


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    tickets = Tickets(SEED)
    write(directory / "train.jsonl", [tickets.known() for _ in range(N_TRAIN)])
    write(directory / "valid.jsonl", [tickets.known() for _ in range(N_VALID)])
    known = [tickets.known() | {"metadata": {"phrasing": "known"}} for _ in range(N_KNOWN)]
    unseen = [tickets.unseen(*ticket) | {"metadata": {"phrasing": "unseen"}} for ticket in UNSEEN]
    write(directory / "heldout.jsonl", known + unseen)


if __name__ == "__main__":
    main()
