"""A free-text benchmark of general questions, each with a sibling: a question that looks like it and is another.

Written by hand for measuring contamination checks, so that they are not tuned to gpqa-mini's templates. Fields:
question, right answer, wrong choices (empty for an open question), sibling question, sibling's answer. A sibling shares
topic, words and often the choices: one entity swapped, or the inverse asked.
"""

from __future__ import annotations

from posttrain_crew.tools.sources import BenchmarkItem

__all__ = ["QUESTIONS", "general_items", "same_context", "siblings"]

Question = tuple[str, str, tuple[str, ...], str, str]

# ruff: noqa: E501
# fmt: off
QUESTIONS: tuple[Question, ...] = (
    # ---- facts, with choices
    ("Which organelle of a plant cell captures the energy of sunlight and stores it in sugar?", "chloroplast",
     ("mitochondrion", "ribosome", "vacuole"),
     "Which organelle of a plant cell keeps water and waste in a large sac?", "vacuole"),
    ("What is the main reason why the Moon always shows the same face to observers on Earth?", "tidal locking",
     ("magnetic attraction", "solar wind", "its lack of an atmosphere"),
     "What is the main reason why the sky of the Moon looks black to observers who stand on it?", "its lack of an atmosphere"),
    ("Which treaty ended the war between Spain and the United States and moved the Philippines to American control?",
     "Treaty of Paris", ("Treaty of Ghent", "Treaty of Tordesillas", "Treaty of Utrecht"),
     "Which treaty divided the newly discovered lands outside Europe between Spain and Portugal?", "Treaty of Tordesillas"),
    ("In contract law, what must each side give so that a promise becomes binding?", "consideration",
     ("restitution", "estoppel", "novation"),
     "In contract law, what is it called when a new party takes over all duties of an old one?", "novation"),
    ("Which vitamin does human skin make when it is exposed to ultraviolet light?", "vitamin D",
     ("vitamin A", "vitamin C", "vitamin K"),
     "Which vitamin does the human liver need to make clotting factors?", "vitamin K"),
    ("What do economists call a market with many buyers and a single seller who sets the price?", "monopoly",
     ("monopsony", "oligopoly", "duopoly"),
     "What do economists call a market with many sellers and a single buyer who sets the price?", "monopsony"),
    ("Which composer became deaf and nevertheless finished a famous choral symphony?", "Beethoven",
     ("Mozart", "Brahms", "Haydn"),
     "Which composer died young and left a famous requiem mass unfinished?", "Mozart"),
    ("Which gas is released when baking soda reacts with vinegar in an open bowl?", "carbon dioxide",
     ("hydrogen", "oxygen", "ammonia"),
     "Which gas is released when zinc metal reacts with hydrochloric acid in an open tube?", "hydrogen"),
    ("Which river flows through Vienna, Budapest and Belgrade before it reaches the Black Sea?", "Danube",
     ("Rhine", "Elbe", "Vistula"),
     "Which river flows through Basel, Strasbourg and Cologne before it reaches the North Sea?", "Rhine"),
    ("What does a compiler do with source code that an interpreter does not do?", "translates it completely before it runs",
     ("runs it line by line", "checks its licence", "stores it in a database"),
     "What does an interpreter do with source code that a compiler does not do?", "runs it line by line"),
    ("Which layer of the atmosphere contains most of the ozone that absorbs ultraviolet radiation?", "stratosphere",
     ("troposphere", "mesosphere", "thermosphere"),
     "Which layer of the atmosphere contains most of the water vapour that makes the weather?", "troposphere"),
    ("Which blood vessel carries oxygen-rich blood from the lungs back to the heart?", "pulmonary vein",
     ("pulmonary artery", "vena cava", "aorta"),
     "Which blood vessel carries oxygen-poor blood from the heart to the lungs?", "pulmonary artery"),
    ("Which data structure returns the element that was added last before all others?", "stack",
     ("queue", "heap", "linked list"),
     "Which data structure returns the element that was added first before all others?", "queue"),
    ("Who painted the ceiling of the Sistine Chapel for Pope Julius?", "Michelangelo",
     ("Raphael", "Leonardo da Vinci", "Titian"),
     "Who painted the School of Athens in the rooms of Pope Julius?", "Raphael"),
    ("What kind of rock forms when limestone is changed by heat and pressure deep in the crust?", "marble",
     ("slate", "granite", "basalt"),
     "What kind of rock forms when shale is changed by heat and pressure deep in the crust?", "slate"),
    ("Which cell division reduces the number of chromosomes by half to produce gametes?", "meiosis",
     ("mitosis", "binary fission", "budding"),
     "Which cell division keeps the number of chromosomes and produces identical body cells?", "mitosis"),
    ("A patient drinks a great deal, passes much urine and has high blood sugar. Which hormone is most likely missing?",
     "insulin", ("cortisol", "thyroxine", "aldosterone"),
     "A patient is tired, feels cold and gains weight quickly. Which hormone is most likely missing?", "thyroxine"),
    ("Which statistical error is made when a true null hypothesis is rejected?", "type one error",
     ("type two error", "sampling error", "standard error"),
     "Which statistical error is made when a false null hypothesis is not rejected?", "type two error"),
    ("Which planet has the Great Red Spot, a storm that has lasted for centuries?", "Jupiter",
     ("Saturn", "Neptune", "Mars"),
     "Which planet has the highest known volcano of the solar system, long extinct?", "Mars"),
    ("What is the term for the smallest unit of sound that separates one word from another in a language?", "phoneme",
     ("morpheme", "syllable", "lexeme"),
     "What is the term for the smallest unit of meaning that a word of a language can be split into?", "morpheme"),
    # ---- facts, open
    ("Explain in one sentence why ice floats on liquid water.", "Ice is less dense than liquid water.", (),
     "Explain in one sentence why oil floats on liquid water.", "Oil does not mix with water and weighs less."),
    ("What is the capital city of Australia?", "Canberra", (), "What is the capital city of Austria?", "Vienna"),
    ("Name the process by which plants lose water vapour through small openings in their leaves.", "transpiration", (),
     "Name the process by which plants make sugar from carbon dioxide in their leaves.", "photosynthesis"),
    ("Which law says that the current through a conductor is proportional to the voltage across it?", "Ohm's law", (),
     "Which law says that the pressure of a gas is inversely proportional to its volume?", "Boyle's law"),
    ("Who wrote the play in which a Danish prince avenges the murder of his father?", "William Shakespeare", (),
     "Who wrote the play in which a doctor sells his soul for knowledge?", "Christopher Marlowe"),
    ("What do you call a word that is spelled the same forwards and backwards?", "palindrome", (),
     "What do you call a word that sounds like the noise that it names?", "onomatopoeia"),
    ("Which country gave the Statue of Liberty to the United States as a present?", "France", (),
     "Which country sold Alaska to the United States for gold?", "Russia"),
    ("What is the name of the fear of closed and narrow spaces?", "claustrophobia", (),
     "What is the name of the fear of open and crowded spaces?", "agoraphobia"),
    ("Which metal is liquid at room temperature and was used in old thermometers?", "mercury", (),
     "Which metal is light, does not rust and is used in drink cans?", "aluminium"),
    ("Why do sailors on long voyages eat lemons and oranges?", "The vitamin C in them prevents scurvy.", (),
     "Why do sailors on long voyages watch the polar star?", "It tells them the latitude."),
    ("Describe how a vaccine prepares the immune system for a later infection.",
     "It shows a harmless part of the germ so that memory cells form.", (),
     "Describe how an antibiotic helps the immune system against a present infection.",
     "It kills bacteria or stops their growth."),
    ("What part of speech describes a verb and often ends with the letters ly?", "adverb", (),
     "What part of speech replaces a noun and avoids repeating it?", "pronoun"),
    # ---- numbers, with choices
    ("A bakery sells 48 loaves on Monday and 35 loaves on Tuesday. Each loaf costs 3 dollars. How much money does the "
     "bakery earn on both days together?", "249", ("240", "231", "258"),
     "A bakery earns 144 dollars on Monday and 105 dollars on Tuesday. How many loaves of 3 dollars does it sell?", "83"),
    ("A cyclist rides 18 km in the first hour and 24 km in the next 2 hours. What is the average speed in km per hour?",
     "14", ("21", "15", "12"),
     "A cyclist rides at an average speed of 14 km per hour for 3 hours. How many km does he cover?", "42"),
    ("A rectangular garden is 12 m long and 7 m wide. How many metres of fence are needed to go round it?", "38",
     ("84", "19", "76"), "A rectangular garden is 12 m long and has 38 metres of fence round it. How wide is it in metres?", "7"),
    ("A solution contains 40 g of salt in 160 g of water. What is the mass percentage of salt in the solution?", "20",
     ("25", "40", "16"), "How many grams of salt are in 200 g of a solution with a mass percentage of 20?", "40"),
    ("Olivia buys 4 notebooks for 2.5 euros each and pays with a note of 20 euros. How much change does she get?", "10",
     ("12", "8", "15"), "Olivia pays with a note of 20 euros and gets 10 euros back. What did each of her 4 notebooks cost?", "2.5"),
    ("A spring stretches by 6 cm when a weight of 30 newtons hangs on it. What is its stiffness in newtons per cm?", "5",
     ("180", "24", "36"), "A spring has a stiffness of 5 newtons per cm. How far in cm does a weight of 30 newtons stretch it?", "6"),
    ("A gas is heated at constant volume from 300 K to 450 K. By which factor does its pressure rise?", "1.5",
     ("0.67", "2", "150"), "A gas is heated at constant pressure and its volume rises from 300 ml to 450 ml. What happened to its temperature?", "it rose by half"),
    ("A train with 9 carriages carries 64 passengers in each carriage. At the next station 75 people get off. How many "
     "are still on the train?", "501", ("576", "651", "491"),
     "A train with 9 carriages carries 576 passengers in total. How many are in each carriage?", "64"),
    ("In a class of 28 pupils, 16 play football and 11 play chess; 5 do both. How many pupils do neither?", "6",
     ("1", "5", "11"), "In a class of 28 pupils, 16 play football and 6 play nothing at all. How many play chess only?", "6"),
    ("A radioactive sample has a half-life of 8 days. How many grams of 96 grams are left after 24 days?", "12",
     ("24", "32", "48"), "A radioactive sample decays from 96 grams to 12 grams in 24 days. What is its half-life in days?", "8"),
    ("A farmer plants 15 rows with 22 apple trees in each row, and 18 trees die in the winter. How many trees survive?",
     "312", ("330", "348", "302"), "A farmer has 330 apple trees in 15 equal rows. How many trees are in a row?", "22"),
    ("A book has 350 pages. Daniel reads 25 pages a day from Monday to Friday and none at the weekend. After how many weeks "
     "is the book finished?", "2.8", ("14", "2", "3.5"),
     "A book has 350 pages. Daniel wants to finish it in 14 days. How many pages a day must he read?", "25"),
    ("A town has 12500 inhabitants, and 2300 of them are older than 65 years. How many inhabitants are 65 years old or "
     "younger?", "10200", ("14800", "9200", "10800"),
     "A town has 12500 inhabitants, and 10200 of them are 65 years old or younger. What share of them is older?",
     "18 percent"),
    # ---- numbers, open
    ("Grace earns 17 dollars per hour. Last week she worked 6 hours on each of 5 days. How many dollars did she earn?", "510",
     (), "Grace earned 510 dollars last week on 5 days. How many dollars per day is that?", "102"),
    ("A tank holds 900 litres. One pump fills it at 45 litres per minute while a leak loses 15 litres per minute. How long does "
     "filling take?", "30 minutes", (), "A tank was filled by a pump in 20 minutes at 45 litres per minute. How much does it hold?", "900 litres"),
    ("Henry has 3 times as many marbles as Emma. Together they have 52 marbles. How many marbles does Henry have?", "39", (),
     "Henry has 39 marbles and Emma has 13 marbles. How many times as many marbles has Henry?", "3"),
    ("A shirt costs 60 dollars. In the sale its price is lowered by 35 percent. What is the new price?", "39", (),
     "A shirt costs 39 dollars in the sale instead of 60 dollars. By what percent was it lowered?", "35"),
    ("The sum of the first 20 positive even numbers is to be found. What is it?", "420", (),
     "The sum of the first 20 positive odd numbers is to be found. What is it?", "400"),
    ("A recipe for 4 people needs 320 grams of flour and 6 eggs. How many grams of flour are needed for 10 people?", "800", (),
     "A cook has 800 grams of flour. Her recipe takes 320 grams of flour for 4 people. How many people can eat?", "10"),
    ("A ladder of 13 m leans against a wall, its foot 5 m from the wall. How high does it reach?", "12", (),
     "A ladder of 13 m reaches a height of 12 m on a wall. How far from the wall is its foot?", "5"),
    ("A factory packs 48000 screws into boxes of 250 screws. How many boxes does it fill?", "192", (),
     "A factory fills 192 boxes with 250 screws each. How many screws does it pack?", "48000"),
    ("A charity collected 1250000 euros and spent 875000 euros on wells. How many euros are left?", "375000", (),
     "A charity has 375000 euros left after it spent 875000 euros on wells. How many euros had it collected?",
     "1250000"),
    ("Two dice are thrown. What is the probability that the sum of the dots is 9?", "1/9", (),
     "Two dice are thrown. What is the probability that the sum of the dots is 7?", "1/6"),
)
# fmt: on


def general_items() -> list[BenchmarkItem]:
    """The questions as benchmark items; the right choice moves from place to place."""
    items = []
    for number, (question, answer, wrong, _, _) in enumerate(QUESTIONS):
        place = number % (len(wrong) + 1)
        choices = (*wrong[:place], answer, *wrong[place:]) if wrong else ()
        items.append(BenchmarkItem(f"general/{number}", question, choices, "ABCD"[place] if wrong else answer))
    return items


def siblings() -> tuple[list[BenchmarkItem], list[BenchmarkItem]]:
    """Questions that are not in the benchmark: (an entity swapped, the inverse problem). The first share the choices."""
    swapped, inverse = [], []
    for number, (question, _, wrong, sibling, answer) in enumerate(QUESTIONS):
        choices = tuple(sorted((*wrong, QUESTIONS[number][1]))) if answer in wrong else ()
        right = "ABCD"[choices.index(answer)] if choices else answer
        kind = inverse if any(mark.isdigit() for mark in question) else swapped
        kind.append(BenchmarkItem(f"sibling/{number}", sibling, choices, right))
    return swapped, inverse


def same_context() -> list[BenchmarkItem]:
    """Other questions about the very words and numbers of an item: the n-gram rules accuse them, and are meant to."""
    return [
        BenchmarkItem("context/0", "A rectangular garden is 12 m long and 7 m wide. How many square metres of lawn fill it?",
                      (), "84"),
        BenchmarkItem("context/1", "A recipe for 4 people needs 320 grams of flour and 6 eggs. How many eggs are needed for "
                      "10 people?", (), "15"),
    ]  # fmt: skip
