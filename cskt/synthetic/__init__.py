"""SynthPEDES, the embedded pedestrians, and the generic corpus for pre-training: drawn and
described by rule, and always the same for the same seed.

How a picture comes about, and in which file::

    identities  who: the attributes of a person, and how often each occurs
    style       how a camera network sees (Style), and one shot of it (Scene)
    render      one shot, from these three:
      scenery     the street behind the person, and what may stand before them
      figure      the person's pose and measures      canvas  strokes of colour and label at once
      body        the painter's order, legs, arms, head and hair
      garments    what is worn from the neck to the feet
      accessories bags, scarf, umbrella, eyewear, headwear
      photograph  light, cloth, outlines, noise
    lexicon     the words, and each domain's sentences
    captions    what one image shows, and a caption about it
    domains     SynthPEDES-A, -B and -C, written to disk in the official layouts
    mentions    which words of a caption name which pixels
    rewording   what a caption says, in the words of another domain
    corpus      pictures and captions for the pre-training of cskt-mini
    tables      reads the yaml files: people, drawing, words, domains

*A new upper garment*: its name and odds in ``people.yaml``, its cut in ``drawing.yaml`` (and a
function beside ``garments._draw_logo`` if it shows more than a cut), its words in ``words.yaml``.
Trousers go the same way by ``garments.draw_trouser_leg``, and things by a function in
``accessories`` that ``body.draw_person`` calls at its place in the painter's order; a new *kind* of
thing also needs a field of ``Identity``, a part in ``drawing.yaml``, its thresholds in
``words.yaml`` and a line in ``captions.visible_attributes``.

*A new domain*: an entry in ``domains.yaml`` (its look, seed and layout), one in ``words.yaml``
(its sentences), its letter in ``domains.DOMAINS``, and its name where the loaders list data sets.

Either changes what is drawn or said after it: raise ``domains.VERSION``, and make cskt-mini anew
(``python -m cskt pretrain-mini``), so that it knows the new words.
"""

from cskt.synthetic.domains import VERSION, label_map, synthetic_dataset
from cskt.synthetic.rewording import reworded

__all__ = ["VERSION", "label_map", "reworded", "synthetic_dataset"]
