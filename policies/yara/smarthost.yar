// The rules that Smarthost ships: few, and dependable. Each names what a file cannot be without when it does harm, so that
// ordinary mail does not match. Put rules of your own in files beside this one; `smarthost reload` takes them.
// Every rule that matches is a virus to the policy (the facts virus.found and virus.name). A rule tagged `note` is not.

rule EICAR_Test_File
{
    meta:
        description = "The test string that all scanners find, at the start of a file"
        reference = "https://www.eicar.org"
    strings:
        // Put together here, so that this file is not one.
        $eicar = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24 45 49 43 41 52 2D 53 54 41
                   4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        $eicar in (0..16) and filesize < 256
}

rule RTF_Equation_Editor_Object
{
    meta:
        description = "An RTF file with an object of the equation editor of 2000, which runs what it is given"
        reference = "CVE-2017-11882, CVE-2018-0802"
    strings:
        $name = "4571756174696f6e2e33" nocase  // Equation.3, as \objdata writes it
        $class = "02ce020000000000c000000000000046" nocase
    condition:
        uint32be(0) == 0x7B5C7274 and any of them
}

rule Office_Follina_Handler
{
    meta:
        description = "An Office relationship, or a page, that hands a troubleshooter a command"
        reference = "CVE-2022-30190"
    strings:
        $handler = /ms-msdt:[\/\\-]/ nocase
        $command = "IT_BrowseForFile" nocase
        $rebrowse = "IT_RebrowseForFile" nocase
    condition:
        $handler and ($command or $rebrowse) and filesize < 2MB
}

rule Shortcut_Starts_Interpreter
{
    meta:
        description = "A Windows shortcut whose arguments have an interpreter fetch or decode something"
    strings:
        $interpreter = /powershell|pwsh|mshta|wscript|cscript|certutil|bitsadmin|regsvr32|rundll32|cmd\.exe/ nocase ascii wide
        $fetches = /https?:\/\/|-e(nc|ncodedcommand)? |FromBase64String|DownloadString|DownloadFile|Invoke-WebRequest|iwr |curl / nocase ascii wide
    condition:
        uint32be(0) == 0x4C000000 and uint32be(4) == 0x01140200 and all of them
}

rule Script_Downloads_And_Runs
{
    meta:
        description = "A script for the Windows Script Host that fetches a file and starts it"
    strings:
        $shell = /WScript\.Shell|Shell\.Application/ nocase ascii wide
        $fetch = /(MSXML2|WinHttp|Microsoft)\.(Server)?(XMLHTTP|WinHttpRequest)/ nocase ascii wide
        $write = "ADODB.Stream" nocase ascii wide
        $run = /\.(Run|Exec|ShellExecute)\b/ nocase ascii wide
    condition:
        filesize < 2MB and all of them
}

rule Macro_Runs_Shell_On_Open
{
    meta:
        description = "A macro in clear that starts an interpreter when its document is opened"
    strings:
        $open = /Auto_?Open|Document_Open|Workbook_Open/ nocase
        $shell = /WScript\.Shell|Shell\s*\(|CreateObject\s*\(\s*"Shell\.Application/ nocase
        $interpreter = /powershell|mshta|certutil|cmd(\.exe)? \/c/ nocase
        $fetch = /URLDownloadToFile|MSXML2\.XMLHTTP|DownloadString|DownloadFile/ nocase
    condition:
        filesize < 8MB and $open and $shell and ($interpreter or $fetch)
        and (uint32be(0) == 0xD0CF11E0 or $open in (0..4096))
}

rule OneNote_Embedded_Program
{
    meta:
        description = "A OneNote file with a program or script in it, behind a picture that asks to be clicked"
    strings:
        // The header of an embedded file (MS-ONESTORE 2.6.13), with a program or a script right behind it.
        $program = { E7 16 E3 BD 65 26 11 45 A4 C4 8D 4D 0B 7A 9E AC [20] 4D 5A }
        $shortcut = { E7 16 E3 BD 65 26 11 45 A4 C4 8D 4D 0B 7A 9E AC [20] 4C 00 00 00 01 14 02 00 }
        $file = { E7 16 E3 BD 65 26 11 45 A4 C4 8D 4D 0B 7A 9E AC }
        $script = /<script|<job|WScript\.|CreateObject\s*\(|powershell|@echo off/ nocase
    condition:
        uint32be(0) == 0xE4525C7B and ($program or $shortcut or ($file and $script))
}
