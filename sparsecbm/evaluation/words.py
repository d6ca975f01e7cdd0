"""Words for the control of random concepts: everyday English that names nothing a picture could show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from sparsecbm._base.errors import InputError

_LIST = """
ability absence abstraction abundance accent acceptance accident accord accuracy accusation addiction adequacy
adjective admission adverb advice affair agenda agreement allegation alliance allocation allowance alternative
ambiguity ambition amnesty analogy analysis ancestry anecdote annex announcement anthem anxiety apology appeal
appendix appetite approach approval argument arrears aspect aspiration assent assertion assumption assurance attempt
attitude attribute audit authority autonomy average aversion axiom backlog bailout balance bankruptcy bargain belief
benchmark benefit betrayal bias blame bluff bonus boredom boycott bravery brevity bribe budget bureaucracy bypass
calibration campaign candour canon capacity caution census century certainty challenge chance chaos charity charter
chore citation claim clarity clause clearance clemency cliche coalition coercion coincidence comeback comfort comment
commerce commission commitment comparison compassion competence complaint complexity compliance compromise concept
concern concession conclusion condition conduct confession confidence conflict conjecture consensus consent
consequence conspiracy constraint consultation contempt context contract contradiction controversy convention
conviction courage courtesy credibility credit criterion criticism curfew curiosity custom deadline debate debt decade
deceit decency decision decree deduction default defeat deficit definition delay delegation denial dependence deposit
deputy derivative despair detail devotion diagnosis dialect dialogue dignity dilemma diligence discipline discount
discourse discovery discretion dismissal dispute distinction diversity dividend doctrine donation doubt duration duty
economy edition effect efficiency effort election eloquence embargo emergency emphasis encore endeavour endorsement
enigma enquiry entitlement envy epilogue episode epoch equality equation equity era error essay essence estimate
eternity ethics etiquette evasion evidence exaggeration exception excess exchange excuse exemption exile existence
expense experience experiment expertise extent fact failure fairness faith fallacy fame fantasy fate fault favour
feasibility fiction figment finance folly forecast foresight forgiveness formality formula fortnight franchise fraud
freedom frequency friendship frustration function gamble generosity genre glory glossary goal gossip gradient grammar
gratitude gravity grief grievance guarantee guess guidance guilt habit harmony haste hearsay heritage hierarchy
hindsight history homework honesty honour hope hour hypothesis idea identity ideology idiom ignorance illusion impasse
impression incentive increment indifference inertia inference inflation influence initiative innocence inquiry insight
inspiration instinct integer integrity intention interest interim interval intuition irony item jargon jealousy job
joke journey judgment jurisdiction justice keyword kindness knowledge kudos label latency law lecture legacy legend
leisure liability liberty licence likelihood limerick limit loan logic longing loophole lottery loyalty luck luxury
majority malice mandate margin maxim meaning median mediation meeting memo memory mercy merger merit metaphor method
midnight minority misery mistake moment monopoly month mood moral mortgage motive myth narrative necessity negation
negotiation nonsense norm nostalgia notion novelty nuance oath objection obligation obscurity occasion offence offer
omen omission opinion optimism option oracle ordeal origin outcome overdraft overtime paradox paraphrase pardon parity
parody patience pause payroll penalty pension percentage permission perspective pessimism petition phrase pity
platitude plea pledge policy polite postulate poverty practice praise precedent preface preference prejudice premise
premium prestige pretext pride principle priority privacy privilege probability problem procedure profit progress
prologue promise pronoun proof prophecy proposal protocol proverb proviso prudence puzzle quality quantity quarrel
query question quota quotient ratio rationale reason rebate rebuttal recession recital recourse refund refusal regret
regulation rehearsal relevance reliance relief reluctance remark remedy reminder remorse rent reply reproach
reputation request residue respect respite response result revenge revenue reversal review rhetoric rhyme riddle
rigour risk ritual routine royalty rule rumour sanction sarcasm satire schedule secrecy semester sentence sequel
session setback severity shortage sincerity situation slogan sobriety solution sorrow statute stigma strategy subsidy
subtotal success suffix summary surplus suspicion syllable symmetry synonym syntax synthesis tact tariff tautology tax
temptation tenancy tendency tenure theorem theory thesis threshold tolerance topic total tradition tragedy treaty
trend trial trust truth tuition turnover ultimatum uncertainty undertone unity update usage utility vacancy validity
value variance verb verdict version veto viability virtue vocation wage warranty wedlock week whim wisdom wish wit
wonder worth yesterday zeal
"""
#: Abstract words, hand-written: nothing to see, so nothing that a concept set or a class list should name.
WORDS: tuple[str, ...] = tuple(_LIST.split())


def random_words(
    n: int,
    rng: np.random.Generator,
    vocabulary: Sequence[str] | None = None,
    *,
    exclude: Iterable[str] = (),
) -> tuple[str, ...]:
    """Draw `n` different words that have nothing to do with any picture.

    Parameters
    ----------
    n : int
        How many. More than there are words are filled up with pairs of words.
    rng : Generator
        Source of randomness.
    vocabulary : sequence of str, optional
        Words to draw from, without replacement and without pairs; by default `WORDS`.
    exclude : iterable of str
        Names of concepts and classes: a word that occurs in one of them is not drawn.

    Returns
    -------
    tuple of str, length n

    Raises
    ------
    InputError
        If the vocabulary is too small.

    Examples
    --------
    >>> import numpy as np
    >>> words = random_words(1500, np.random.default_rng(0))
    >>> len(set(words))
    1500
    """
    taken = {word for name in exclude for word in re.findall(r"[^\W_]+", name.lower())}
    words = list(dict.fromkeys(WORDS if vocabulary is None else vocabulary))
    words = [word for word in words if word.lower() not in taken]
    if n <= len(words):
        return tuple(words[i] for i in rng.choice(len(words), n, replace=False))
    pairs = n - len(words)
    if vocabulary is not None or pairs > len(words) * (len(words) - 1):
        raise InputError(f"the vocabulary has {len(words)} different words: expected at least {n}")
    drawn = rng.choice(len(words) * (len(words) - 1), pairs, replace=False)
    first, second = np.divmod(drawn, len(words) - 1)
    second += second >= first  # no word twice in a pair
    singles = [words[i] for i in rng.permutation(len(words))]
    return (*singles, *(f"{words[i]} {words[j]}" for i, j in zip(first, second)))
