"""Smarthost: a security gateway for mail (distribution and command `smarthost`, import package `gateway`)."""

VERSION = "0.1.0"
