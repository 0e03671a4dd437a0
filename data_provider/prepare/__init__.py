"""Preparing: a download, or a folder of files, -> the manifests that the stages read, and the data set card."""

from data_provider.prepare.build import prepare_mimic, prepare_ptbxl
from data_provider.prepare.download import SOURCES, download
from data_provider.prepare.folder import ecg_files, prepare_folder

__all__ = ["SOURCES", "download", "ecg_files", "prepare_folder", "prepare_mimic", "prepare_ptbxl"]
