"""The manifests described for tools that find data sets: Croissant 1.0 (Akhtar et al. 2024)."""

from pathlib import Path

TERMS = (  # of the specification's context
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
).split()
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS},
}


def croissant(card, folder):
    """The Croissant metadata of a folder's manifests.

    Parameters
    ----------
    card : dict
    folder : str
        Which folder's files, as they stand in the card.
    """
    of_reports = folder.startswith("report/")
    fields = ("filepath", "report", "background") if of_reports else ("question", "question_type", "attribute_type")
    files = {
        Path(name).stem: (Path(name).name, file) for name, file in card["files"].items() if name.startswith(folder)
    }
    distribution = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": "application/json",
            "sha256": file["sha256"],
        }
        for name, file in files.values()
    ]
    record_sets = [
        {
            "@type": "cr:RecordSet",
            "@id": stem,
            "name": stem,
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{stem}/{field}",
                    "name": field,
                    "dataType": "sc:Text",
                    "source": {"fileObject": {"@id": name}, "extract": {"jsonPath": f"$[*].{field}"}},
                }
                for field in fields
            ],
        }
        for stem, (name, file) in files.items()
        if file["items"]
    ]
    kind = "reports" if of_reports else "questions and answers"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{card['name']}-{folder.split('/')[0]}",
        "description": f"ECG {kind} on {card['name']}; record -> split: SHA-256 {card['records_sha256']}",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": f"{card['format']}.0.0",
        "distribution": distribution,
        "recordSet": record_sets,
    }
