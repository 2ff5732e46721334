"""Frequent words and letters of the Latin-script languages that r1rl.text.language distinguishes.

Function words carry most of the evidence: they make up about half of any running text. A few words of
mathematical prose are added, since that is the prose that is measured. A word of several languages counts for
each of them.
"""

from __future__ import annotations

_WORDS = {
    "en": """
        the of and to a in is it that for was on are as with be at by this had not but what all were we when
        your can said there an each which she do how their if will up about out many then them these so some
        her would make like him into has two more no way could my than first been its who now find any new
        part take get place made after back only me our under need know should let let's so such also because
        while where why here they you i he have from or one other just very much most same both between since
        thus hence therefore means wait check answer number numbers sum product total equals equal times plus
        minus divided step next finally again gives given problem solve since must might does did using use
        used each every left right three four five six seven eight nine ten his us let's that's it's i'm we're
        don't isn't okay ok actually hmm maybe so start add subtract multiply divide remaining per day days
        cost costs many apples how adding subtracting multiplying dividing compute think remains result verify
        recheck looks
    """,
    "de": """
        der die das und in zu den ist von nicht mit es sich auch auf für an er hat dass sie nach bei ein eine
        einen einem einer eines um am sind noch wie einmal über so zum aus hatte oder nur war ich wir ihr sein
        werden wird wurde kann können muss müssen haben habe aber wenn als dann also denn da weil damit daher
        somit deshalb dies diese dieser dieses jetzt hier dort was wer wo alle mehr man mal zwei drei vier
        fünf sechs sieben acht neun zehn summe zahl zahlen ergebnis antwort gleich durch plus minus ergibt
        lösung aufgabe schritt nun zuerst zunächst warte prüfen überprüfen rechnen berechnen gilt sei seien
        jede jeder jedes insgesamt vom im ins zur doch schon sehr viele wieder unter vor ihm ihn uns euch mein
        dein unser kein keine sondern bis gegen ohne ja nein richtig falsch teilen addieren subtrahieren
        multiplizieren erhalten bekommen bleibt bleiben kostet pro tag tage
    """,
    "fr": """
        le la les de des du un une et est en que qui dans ce cette ces il elle on nous vous ils elles je tu ne
        pas plus pour par sur avec au aux se sa son ses leur leurs mais ou où donc or ni car si comme tout
        tous toute toutes être avoir fait faire peut sont ont était avait a été sera serait alors ainsi puis
        ensuite enfin d'abord parce quand combien deux trois quatre cinq six sept huit neuf dix somme nombre
        nombres résultat réponse égal égale fois moins divisé donne étape attends vérifions vérifier calculer
        calculons soit soient chaque y quel quelle même encore aussi très bien cela ça c'est n'est d'où l'on
        qu'il qu'on j'ai il faut trouver trouve trouvons obtient obtenons reste restent ajouter ajoute
        soustraire multiplier diviser total jour jours coûte sans sous entre après avant vers chez notre votre
        mon ton oui non vrai faux
    """,
    "es": """
        el la los las de del y en que es un una por con para no se lo su sus al como más pero este esta estos
        estas ese esa eso esto si ya o fue ha hay son está están ser tiene tienen entonces así porque cuando
        cuánto cuántos cuántas también muy sin sobre entre todo todos toda todas nos le les me mi tu yo él
        ella ellos nosotros dos tres cuatro cinco seis siete ocho nueve diez suma número números resultado
        respuesta igual veces menos dividido da paso primero luego después finalmente espera verificar
        comprobar calcular calculamos sea sean cada uno qué cuál donde hasta desde durante puede podemos debe
        debemos tenemos por lo tanto obtenemos encontrar hallar queda quedan sumar restar multiplicar dividir
        total día días cuesta cuestan sí correcto solución ahora bien vez mismo otra otro otros
    """,
    "it": """
        il lo la i gli le di del della dei delle dello degli e è in che un una uno per con non si su da dal
        dalla al alla ai alle come più ma questo questa questi queste quello quella se o fu ha hanno sono sia
        essere abbiamo avere quindi allora così perché quando quanto quanti anche molto senza sopra tra fra
        tutto tutti tutte ci mi ti io lui lei noi loro due tre quattro cinque sei sette otto nove dieci somma
        numero numeri risultato risposta uguale volte meno diviso dà passo prima poi infine aspetta verificare
        verifichiamo calcolare calcoliamo ogni nel nella nei nelle sul sulla dove cui può possiamo deve
        dobbiamo otteniamo trovare troviamo resta restano sommare sottrarre moltiplicare dividere totale
        giorno giorni costa costano sì corretto soluzione ora adesso dunque pertanto stesso altra altro
    """,
    "pt": """
        o a os as de do da dos das e é em no na nos nas que um uma uns umas por pelo pela com para não se ao à
        aos às como mais mas este esta isso isto esse essa já ou foi há são está estão ser tem têm então assim
        porque quando quanto quantos quantas também muito sem sobre entre todo todos toda todas lhe me meu eu
        ele ela eles nós dois duas três quatro cinco seis sete oito nove dez soma número números resultado
        resposta igual vezes menos dividido dá passo primeiro depois finalmente espere verificar calcular
        calculamos seja sejam cada qual onde até desde pode podemos deve devemos temos portanto logo obtemos
        encontrar restam resta somar subtrair multiplicar dividir total dia dias custa custam sim correto
        solução agora bem vez mesmo outra outro
    """,
    "nl": """
        de het een en van ik te dat die in je is niet zijn op aan met als voor had er maar om hem dan zou of
        wat mijn men dit zo door over ze zich bij ook tot uit der daar naar heb heeft hebben deze u want nog
        zal me zij nu ge geen omdat iets worden wordt werd toch al waren veel meer doen toen moet ben zonder
        kan kunnen hun dus alles onder ja eens hier wie altijd wij we twee drie vier vijf zes zeven acht negen
        tien som getal getallen antwoord gelijk keer plus min gedeeld geeft stap eerst vervolgens daarna
        tenslotte wacht controleren berekenen berekenen elke elk hoeveel uitkomst klopt juist oplossing
        krijgen blijft blijven kost
    """,
}

WORDS: dict[str, frozenset[str]] = {language: frozenset(words.split()) for language, words in _WORDS.items()}

LETTERS: dict[str, str] = {
    "en": "",
    "de": "äöüß",
    "fr": "àâçéèêëîïôùûœ",
    "es": "áéíñóúü¿¡",
    "it": "àèéìòù",
    "pt": "ãáâàçéêíóôõú",
    "nl": "ëïé",
}
"""The letters outside a-z that a language uses."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "en": ("ing", "tion", "ght", "ck", "ness", "ould", "ly", "wh", "ough", "ed"),
    "de": ("ung", "ungen", "keit", "heit", "lich", "isch", "schen", "cht", "chen", "eren", "iert"),
    "fr": ("eux", "eaux", "ons", "ez", "ment", "ique", "elle", "oir", "ait", "aient"),
    "es": ("ción", "mos", "dad", "ndo", "miento", "illa", "ada", "ados", "adas", "amos"),
    "it": ("zione", "zioni", "iamo", "tà", "mente", "ggio", "cchi", "tto", "tti", "lla"),
    "pt": ("ção", "ções", "mos", "dade", "ndo", "mento", "inho", "ão", "eira", "lh"),
    "nl": ("ij", "lijk", "heid", "ijk", "aat", "oor", "eel", "een", "isch", "tje"),
}
"""Endings of words, which are weaker evidence than the words themselves."""
