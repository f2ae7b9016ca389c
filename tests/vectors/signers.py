#!/usr/bin/env python3
"""Writes public/signers.json: lines of allowed signers, each with whether `ssh-keygen -Y verify -I me -n file` accepts a
signature by it. In the lines, KEY stands for the public key. Needs OpenSSH 9; say `python3 tests/vectors/signers.py`.
"""
import json, os, subprocess, sys, tempfile

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "public", "signers.json")
os.chdir(tempfile.mkdtemp())
subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "k"], check=True)
open("f", "w").write("a payload\n")
subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", "k", "f"], check=True)
key = open("k.pub").read().strip()

PRINCIPALS = ["me", "me,you", "you,me", "m*", "m?", "!me,*", "*,!me", '"me"', '"me you"', '"me",you', 'me"', '"me', "", "m e", "*",
              "?", "??", "!*", "me,", '"a b,me"', "ME", "\u00a0me", ",me", "!you", "me\t", "m**e", "*e,!m?", '"m*"', "me\\"]
OPTIONS = ["", 'namespaces="file"', 'namespaces="f*"', 'namespaces="git"', 'namespaces="git,file"', 'namespaces="!git,*"',
           'namespaces="!file,*"', 'NAMESPACES="file"', "namespaces=file", 'namespaces=""', 'namespaces=" file"',
           'namespaces="file" ,valid-after="20200101Z"', 'namespaces="fi"le"', 'namespaces="fi\\"le"', 'namespaces="file"x',
           'namespaces = "file"', 'namespaces="file"\t', 'namespaces="file,"', 'namespaces=",file"', ',namespaces="file"',
           'namespaces="file",namespaces="file"', 'namespaces="FILE"', 'namespaces="fi?e"', 'valid-after="20200101Z"',
           'valid-after="20200101Z",valid-before="20500101Z"', 'valid-before="20200101Z"', 'valid-after="20500101Z"',
           'valid-after="202001011200Z"', 'valid-after="20200101120000Z"', 'valid-after="2020010112Z"',
           'valid-after="20201301Z"', 'valid-after="20200230Z"', 'valid-after="2020010125Z"', 'valid-after="202001012460Z"',
           'valid-after="20200101240000Z"', 'valid-after="20200101235960Z"', 'valid-after="20200101z"',
           "valid-after=20200101Z", 'valid-after="20200101Z",', 'valid-after="20200101Z",,namespaces="file"',
           'valid-before="20200101Z",valid-after="20500101Z"', "no-touch-required", 'valid-after="00010101Z"',
           'valid-after="19690101Z"', 'valid-before="99991231Z"', 'valid-after="0x1000"', 'valid-after="2020-01-01Z"',
           "cert-authority", 'valid-after="20200101Z" valid-before="20500101Z"', 'valid-after="20200101"']
lines = [f"{principals} {options} KEY".replace("  KEY", " KEY") for principals in PRINCIPALS for options in OPTIONS[:6]]
lines += [f"me {options} KEY" for options in OPTIONS[6:]]
for tail in ["  KEY", "KEY c", 'KEY a "quoted" #x', "KEY=", "ssh-ed25519", "ssh-rsa KEY", "KEY KEY"]:
    lines += ["me " + tail, 'me namespaces="file" ' + tail]
lines += ["me KEY\r", "  me KEY", "\tme KEY", "#me KEY", " # me KEY", "me\tKEY", 'me  namespaces="file"  KEY', "me\u00a0KEY",
          "\u000bme KEY", "\u000cme KEY", "me KEY\u000b", "me KEY\u000c", "\ufeffme KEY"]
judged = []
for line in lines:
    open("signers", "w", newline="").write(line.replace("KEY", key) + "\n")
    verify = ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "me", "-n", "file", "-s", "f.sig"]
    run = subprocess.run(verify, stdin=open("f"), capture_output=True)
    judged.append([line, run.returncode == 0])
open(out, "w").write("[\n" + ",\n".join(json.dumps(one) for one in judged) + "\n]\n")
print(f"{sum(accepts for _, accepts in judged)} of {len(judged)} are accepted", file=sys.stderr)
