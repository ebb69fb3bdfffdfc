"""Words that fill the templates: the variety of the written text begins here.

All lists are our own. A list is one string with entries apart by semicolons, so that it stays readable.
"""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(";") if part.strip())


TOPICS = _split("""
    photosynthesis; plate tectonics; the water cycle; black holes; neutron stars; the Big Bang; dark matter; solar eclipses;
    the phases of the moon; tides; comets; the planet Mars; the rings of Saturn; space telescopes; rocket propulsion;
    satellite navigation; gravity; friction; electric motors; magnetism; semiconductors; lasers; optical fibres; batteries;
    nuclear fusion; nuclear fission; radioactivity; wind turbines; solar panels; hydroelectric dams; geothermal energy;
    thermodynamics; entropy; heat pumps; refrigerators; steam engines; jet engines; internal combustion engines; bicycles;
    electric cars; high-speed trains; container shipping; suspension bridges; skyscrapers; concrete; steel making; glass;
    ceramics; plastics; recycling; composting; sewage treatment; drinking water; desalination; irrigation; crop rotation;
    soil erosion; fertilisers; bees and pollination; ants; butterflies; spiders; sharks; whales; dolphins; coral reefs;
    deep-sea fish; seahorses; octopuses; penguins; owls; eagles; migrating birds; bats; wolves; bears; elephants; tigers;
    giraffes; kangaroos; horses; dogs; cats; dinosaurs; fossils; evolution; natural selection; genetics; DNA; gene editing;
    viruses; bacteria; fungi; vaccines; antibiotics; the immune system; the human heart; the lungs; the liver; the brain;
    memory; sleep; dreams; stress; anxiety; meditation; exercise; nutrition; vitamins; diabetes; allergies; asthma; cancer;
    surgery; anaesthesia; X-rays; public health; pandemics; hygiene; ageing; childhood development; language learning;
    bilingualism; the alphabet; sign language; punctuation; poetry; haiku; novels; fairy tales; myths; Greek mythology;
    Norse mythology; Roman law; ancient Egypt; Mesopotamia; the Indus valley; the Silk Road; the Roman Empire; the Vikings;
    the Middle Ages; the Black Death; the Renaissance; the printing press; the Reformation; the Ottoman Empire;
    the Mughal Empire; the Aztecs; the Incas; the age of sail; the French Revolution; the Industrial Revolution;
    the abolition of slavery; the American Civil War; the First World War; the Great Depression; the Second World War;
    the Cold War; the space race; the fall of the Berlin Wall; the European Union; the United Nations; human rights;
    democracy; elections; constitutions; courts; juries; contract law; copyright; patents; trademarks; privacy; taxation;
    inflation; interest rates; central banks; supply and demand; stock markets; bonds; insurance; mortgages; pensions;
    budgeting; microcredit; international trade; tariffs; globalisation; unemployment; minimum wages; labour unions;
    small businesses; start-ups; marketing; advertising; brand names; customer service; negotiation; leadership; teamwork;
    time management; project planning; remote work; job interviews; public speaking; writing emails; note taking; teaching;
    homework; universities; libraries; museums; architecture; cathedrals; gardens; oil painting; watercolours; sculpture;
    photography; film making; animation; theatre; opera; ballet; jazz; the blues; classical music; the violin; the piano;
    the guitar; drums; singing; folk dances; fashion; weaving; leather; jewellery; cooking; bread baking; cheese; chocolate;
    coffee; tea; wine; beer; olive oil; rice; noodles; soups; spices; vegetarian food; street food; table manners; holidays;
    birthdays; weddings; football; basketball; tennis; cricket; swimming; running; cycling; climbing; skiing; sailing; chess;
    board games; card games; video games; puzzles; magic tricks; kites; origami; knitting; woodworking; pottery; gardening;
    fishing; camping; hiking; travel; airports; hotels; maps; time zones; calendars; clocks; the metric system; numbers;
    prime numbers; fractions; percentages; probability; statistics; averages; graphs; geometry; the Pythagorean theorem;
    circles; triangles; algebra; quadratic equations; matrices; calculus; derivatives; integrals; logic; set theory;
    infinity; cryptography; passwords; computer viruses; firewalls; the internet; web browsers; search engines; email;
    social media; blogs; podcasts; streaming video; smartphones; tablets; printers; keyboards; operating systems; Linux;
    databases; spreadsheets; word processors; cloud computing; data centres; networks; wireless routers; Bluetooth;
    programming languages; compilers; debugging; version control; software testing; open source; algorithms; sorting;
    binary search; hash tables; linked lists; trees; graph theory; recursion; parallel computing; operating a web server;
    machine learning; neural networks; language models; computer vision; speech recognition; robots; drones;
    self-driving cars; 3D printing; virtual reality; smart homes; sensors; chemistry; atoms; molecules; the periodic table;
    acids and bases; oxidation; crystals; water; salt; gold; silver; iron; copper; diamonds; oil; natural gas; coal; carbon;
    the ozone layer; climate change; greenhouse gases; glaciers; deserts; rainforests; savannas; wetlands; rivers; lakes;
    oceans; islands; volcanoes; earthquakes; tsunamis; hurricanes; tornadoes; thunderstorms; snow; rainbows; clouds;
    weather forecasts; national parks; endangered species; zoos; farms; markets; cities; villages; public transport; traffic;
    parking; roads; tunnels; canals; harbours; lighthouses; postage stamps; coins; banknotes; flags; national anthems;
    heraldry; genealogy; names; proverbs; jokes; riddles; superstitions; ghosts; philosophy; ethics; free will; happiness;
    justice; truth; beauty; love; friendship; trust; courage; curiosity; creativity; humour; grief; religion; Buddhism;
    Hinduism; Islam; Judaism; Christianity; Stoicism; existentialism; utilitarianism; psychology; behaviour; habits;
    motivation; emotions; perception; colours; optical illusions; sound; noise; echoes; smell; taste; touch; pain
""")
PLACES = _split("""
    Lisbon; Nairobi; Kyoto; Buenos Aires; Reykjavik; Chicago; Mumbai; Cairo; Warsaw; Hanoi; Toronto; Lima; Athens; Oslo;
    Marrakesh; Istanbul; Seoul; Sydney; Havana; Prague; Dublin; Accra; Tbilisi; Jakarta; Vienna; Denver; Glasgow; Naples;
    Osaka; Zurich; Montreal; Cape Town; Auckland; Porto; Helsinki; Tallinn; Valencia; Lyon; Hamburg; Krakow; New Orleans;
    the Alps; the Andes; Patagonia; the Sahara; the Baltic coast; the Scottish Highlands; Alaska; Sicily; Bavaria; Texas
""")
NAMES = _split("""
    Anna; Ben; Carla; David; Elena; Farid; Grace; Hassan; Ingrid; Jamal; Keiko; Liam; Maria; Nikhil; Olga; Pedro; Qing; Rosa;
    Samuel; Tara; Umar; Vera; Wei; Ximena; Yusuf; Zoe; Amara; Boris; Chloe; Diego; Emma; Felix; Gloria; Hugo; Isla; Jonas;
    Kofi; Lucia; Mateo; Nadia; Oscar; Priya; Quentin; Ravi; Sofia; Tom; Ursula; Victor; Wanda; Yara; Mrs. Lopez; Mr. Tanaka
""")
JOBS = _split("""
    teacher; nurse; pirate captain; detective; medieval knight; astronaut; chef; gardener; lawyer; doctor; farmer; librarian;
    software engineer; travel guide; football coach; historian; economist; poet; stand-up comedian; radio host; journalist;
    scientist; museum guide; wizard; robot from the future; grandmother; museum curator; park ranger; sailor; carpenter;
    personal trainer; job interviewer; shopkeeper; customer support agent; philosopher; dragon; time traveller; mayor
""")
AUDIENCES = _split("""
    a five-year-old; a ten-year-old; a high school student; a college student; a beginner; an expert; a tourist; my grandmother;
    a busy manager; a farmer; someone who has never heard of it; a curious reader; a class of teenagers; an engineer
""")
LANGUAGES = _split(
    "French; German; Spanish; Italian; Portuguese; Dutch; English; Latin; Polish; Swedish"
)
CODE_LANGUAGES = _split("""
    Python; Python; Python; Python; JavaScript; Java; C; C++; SQL; Bash; HTML; Go; Rust; TypeScript; Ruby; R
""")
CODE_TASKS = _split("""
    reverses a string; checks whether a number is prime; computes the factorial of a number; finds the largest of three numbers;
    counts the vowels in a text; removes duplicates from a list; merges two sorted lists; sorts a list of dictionaries by a key;
    reads a CSV file and sums a column; finds all words longer than n letters; computes the nth Fibonacci number;
    checks whether a string is a palindrome; converts Celsius to Fahrenheit; converts a Roman numeral to an integer;
    rotates a matrix; transposes a matrix; multiplies two matrices; finds the most common element of a list;
    computes the greatest common divisor; implements a stack; implements a queue with two stacks; implements binary search;
    implements bubble sort; implements quicksort; implements a linked list; traverses a binary tree; finds the depth of a tree;
    checks balanced parentheses; finds two numbers that add up to a target; counts the words of a file;
    groups words by their first letter; flattens a nested list; computes the mean and the median; generates a random password;
    validates an email address; parses a date; prints a multiplication table; prints a triangle of stars; simulates a dice roll;
    downloads a web page; writes a dictionary to a JSON file; counts how often each character occurs; finds common prefixes;
    checks whether two words are anagrams; capitalises every word; finds the second largest number; sums the digits of a number;
    finds the intersection of two lists; splits a list into chunks; computes the area of a circle; computes compound interest;
    converts an integer to binary; finds missing numbers in a sequence; computes the distance between two points;
    finds the longest increasing run; encodes a text with run-length encoding; shifts letters with a Caesar cipher;
    plays tic-tac-toe; models a bank account; models a library of books; keeps a to-do list; makes a simple calculator
""")
FORMATS = _split("""
    a bulleted list; a numbered list; three short paragraphs; one paragraph; a table; a dialogue; a letter; an email; a poem;
    a short story; a news report; a blog post; an encyclopedia entry; a recipe; a speech; a product description; a review; an essay;
    a FAQ; a diary entry; a checklist; a lesson plan; a press release; a song; a fable; an interview
""")
SYSTEMS = _split("""
    You are a helpful assistant.; You are a careful and concise assistant. Answer in at most three sentences.;
    You are an expert tutor. Explain step by step.; You are a professional translator.; You answer questions truthfully.;
    You are a senior programmer. Write clean code with comments.; You are a friendly chat partner.;
    Answer only with the information that is asked for.; You are a creative writer.; You are a teacher of mathematics.;
    You are a search assistant that answers from the given documents.; You summarise texts faithfully.;
    You extract data and answer in JSON.; You write in plain English.; Be brief.; You are a patient customer support agent.
""")
KINDS = _split("""
    a news article; an encyclopedia article; a magazine article; a short story; a report; a biography; a travel guide; a review;
    a press release; an announcement; a history; an essay; an interview; a scientific summary; a local news report; an obituary
""")
