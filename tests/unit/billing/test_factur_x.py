"""Rules of EN 16931 for an invoice's XML; the slow tests check all of them with Mustang."""

from typing import Any

import pytest
from lxml import etree

from services.billing.invoices.factur_x import as_xml
from services.billing.invoices.parties import NO_SELLER, Party
from services.billing.invoices.schemas import InvoiceRead
from tests.unit.billing.stored_invoices import BUYER, NOT_XML, SELLER, invoice

TAXED: Any = {"rate": "0.19", "taxed": "Tax in FR."}
AT_ZERO: Any = {"rate": "0", "taxed": "Tax in FR."}
REVERSED: Any = {"rate": "0", "taxed": "Reverse charge: the recipient owes the tax."}
UNTAXED: Any = {"rate": "0", "taxed": "No tax applies."}
ALL = pytest.mark.parametrize("tax", [TAXED, AT_ZERO, REVERSED, UNTAXED], ids=["S", "Z", "AE", "O"])
IN_SCOPE = pytest.mark.parametrize("tax", [TAXED, AT_ZERO, REVERSED], ids=["S", "Z", "AE"])


def texts(shown: InvoiceRead, path: str) -> list[str | None]:
    xml = as_xml(shown)
    assert xml is not None
    return [each.text for each in etree.fromstring(xml.encode()).iterfind(f".//{path}")]


def without(party: Party, member: str) -> Party:
    return party.model_copy(update={member: None})


@pytest.mark.parametrize(
    ("tax", "category", "rates", "reasons"),
    [
        (TAXED, "S", ["19", "19"], []),
        (AT_ZERO, "Z", ["0", "0"], []),
        (REVERSED, "AE", ["0", "0"], ["Reverse charge: the recipient owes the tax."]),
        (UNTAXED, "O", [], ["No tax applies."]),
    ],
    ids=["S", "Z", "AE", "O"],
)
def test_tax_has_a_category_with_its_rate_and_reason(
    tax: dict[str, Any], category: str, rates: list[str], reasons: list[str]
) -> None:
    shown = invoice(**tax)

    assert texts(shown, "{*}CategoryCode") == [category, category]
    assert texts(shown, "{*}RateApplicablePercent") == rates
    assert texts(shown, "{*}ExemptionReason") == reasons


@IN_SCOPE
def test_within_the_scope_of_tax_vat_ids_are_stated(tax: dict[str, Any]) -> None:
    shown = invoice(**tax)

    found = texts(shown, "{*}SpecifiedTaxRegistration/{*}ID[@schemeID='VA']")
    assert found == [SELLER.vat_id, BUYER.vat_id]
    assert texts(shown, "{*}SellerTradeParty/{*}ID") == []


def test_outside_the_scope_of_tax_they_are_identifiers_of_any_kind() -> None:
    """BR-O-02 forbids VAT ids, and BR-CO-26 requires an identifier of the seller."""
    shown = invoice(**UNTAXED)

    assert texts(shown, "{*}SpecifiedTaxRegistration") == []
    assert texts(shown, "{*}SellerTradeParty/{*}ID") == [SELLER.vat_id]
    assert texts(shown, "{*}BuyerTradeParty/{*}ID") == [BUYER.vat_id]


@pytest.mark.parametrize(
    ("country", "vat_id", "is_stated"),
    [
        ("US", "12-3456789", False),
        ("MX", "ABC010101AB9", False),
        ("US", "EU372000000", False),
        ("CH", "DE136695976", True),
        ("GR", "EL094259216", True),
        ("JM", "JM1", True),
    ],
)
def test_a_vat_id_is_stated_only_with_a_prefix_of_a_country(
    country: str, vat_id: str, is_stated: bool
) -> None:
    """BR-CO-09."""
    buyer = Party(name="Ada", country=country, vat_id=vat_id)
    shown = invoice(buyer=buyer, **TAXED)

    stated = texts(shown, "{*}BuyerTradeParty/{*}SpecifiedTaxRegistration/{*}ID")
    assert stated == ([vat_id] if is_stated else [])
    assert texts(shown, "{*}BuyerTradeParty/{*}ID") == ([] if is_stated else [vat_id])


@ALL
@pytest.mark.parametrize(
    "parties",
    [
        {"seller": without(SELLER, "country")},
        {"seller": without(SELLER, "vat_id")},
        {"seller": NO_SELLER},
        {"buyer": without(BUYER, "country")},
        {"buyer": Party(name="ada")},
    ],
    ids=["seller's country", "seller's id", "seller", "buyer's country", "profile"],
)
def test_there_is_no_xml_without_countries_and_an_id_of_the_seller(
    tax: dict[str, Any], parties: dict[str, Any]
) -> None:
    """BR-09, BR-11, BR-CO-26."""
    assert as_xml(invoice(**parties, **tax)) is None


@IN_SCOPE
def test_a_sellers_id_without_a_prefix_is_that_of_its_local_tax_office(tax: dict[str, Any]) -> None:
    """BR-S-02, BR-Z-02 and BR-AE-02 accept BT-32, but BR-CO-26 does not."""
    shown = invoice(seller=SELLER.model_copy(update={"vat_id": "12/345/67890"}), **tax)

    assert texts(shown, "{*}SellerTradeParty//{*}ID[@schemeID='FC']") == ["12/345/67890"]
    assert texts(shown, "{*}SellerTradeParty/{*}ID") == ["12/345/67890"]


REGISTERED = SELLER.model_copy(update={"registration_number": "HRB 12345 <B>"})


@ALL
def test_a_registration_number_is_the_sellers_legal_one(tax: dict[str, Any]) -> None:
    """BT-30."""
    shown = invoice(seller=REGISTERED, **tax)

    path = "{*}SellerTradeParty/{*}SpecifiedLegalOrganization/{*}ID"
    assert texts(shown, path) == ["HRB 12345 <B>"]
    assert texts(invoice(**tax), path) == []


def test_it_replaces_a_vat_id_only_where_tax_does_not_apply() -> None:
    """BR-CO-26 accepts BT-30; BR-S-02, BR-Z-02 and BR-AE-02 do not."""
    seller = without(REGISTERED, "vat_id")

    assert texts(invoice(seller=seller, **UNTAXED), "{*}SellerTradeParty/{*}ID") == []
    assert [as_xml(invoice(seller=seller, **tax)) for tax in (TAXED, AT_ZERO, REVERSED)] == [
        None,
        None,
        None,
    ]


def test_there_is_none_where_the_buyer_owes_the_tax_without_a_vat_id() -> None:
    """BR-AE-02."""
    assert as_xml(invoice(buyer=without(BUYER, "vat_id"), **REVERSED)) is None
    assert as_xml(invoice(buyer=without(BUYER, "vat_id"), **TAXED)) is not None


def test_there_is_none_without_lines() -> None:
    """BR-16."""
    assert as_xml(invoice().model_copy(update={"lines": []})) is None


def test_characters_that_xml_forbids_are_replaced() -> None:
    buyer = BUYER.model_copy(update={"name": NOT_XML})

    assert texts(invoice(buyer=buyer), "{*}BuyerTradeParty/{*}Name") == ["a�����"]
