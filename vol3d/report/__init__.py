"""Pictures of results and of training: files that a person looks at.

Radiological convention throughout: the patient's right is on the left of the picture, anterior or superior is up,
and a sagittal plane looks to the left side of the picture. Pictures hold no name, date or number of a patient.
"""
